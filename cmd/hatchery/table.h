// Text for people: aligned columns, and nothing in them that a terminal would obey.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hatchery::cli {

// `text` with control characters (but line breaks and tabs) as "?": guests, and whoever chose a
// sandbox's name, must not steer an operator's terminal.
std::string Printable(std::string_view text);

enum class Align { kLeft, kRight };

struct Column {
  std::string name;
  Align align = Align::kLeft;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // One cell per column; an empty one is shown as "-".
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // Header and rows, columns two spaces apart, each line ended.
  std::string Render() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name:   value" lines with aligned values; those without a value are left out.
std::string RenderFields(const std::vector<std::pair<std::string, std::string>>& fields);

}  // namespace hatchery::cli
