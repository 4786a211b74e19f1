#include "cmd/hatchery/table.h"

#include <algorithm>

namespace hatchery::cli {

namespace {

// Characters, not bytes: UTF-8's continuation bytes take no column.
std::size_t Width(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string Cell(std::string_view text) {
  std::string cell = Printable(text.empty() ? "-" : text);
  std::ranges::replace_if(cell, [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return cell;
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string printable(text);
  for (std::size_t i = 0; i < printable.size(); ++i) {
    const auto c = static_cast<unsigned char>(printable[i]);
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) printable[i] = '?';
    // U+0080 to U+009F are control characters too.
    const bool continues =
        c >= 0x80 && c < 0xa0 && i > 0 && static_cast<unsigned char>(printable[i - 1]) == 0xc2;
    if (continues) printable.replace(i-- - 1, 2, "?");
  }
  return printable;
}

std::string Table::Render() const {
  std::vector<std::vector<std::string>> lines(1);
  for (const Column& column : columns_) lines[0].push_back(column.name);
  for (const auto& row : rows_) {
    auto& line = lines.emplace_back();
    for (const std::string& cell : row) line.push_back(Cell(cell));
  }

  std::vector<std::size_t> widths(columns_.size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], Width(line[i]));
  }

  std::string text;
  for (const auto& line : lines) {
    std::string out;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - Width(line[i]), ' ');
      if (i > 0) out += "  ";
      out += columns_[i].align == Align::kRight ? padding + line[i] : line[i] + padding;
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + '\n';
  }
  return text;
}

std::string RenderFields(const std::vector<std::pair<std::string, std::string>>& fields) {
  std::size_t width = 0;
  for (const auto& [name, value] : fields) {
    if (!value.empty()) width = std::max(width, Width(name));
  }
  std::string text;
  for (const auto& [name, value] : fields) {
    if (value.empty()) continue;
    text += name + ":" + std::string(width - Width(name) + 1, ' ') + Cell(value) + '\n';
  }
  return text;
}

}  // namespace hatchery::cli
