// One plot as a piece of HTML: title, legend, and lines in an inline SVG that needs nothing else.
// Colours and fonts are the page's style sheet's (html.cc), by classes: line c0 to c7 with their
// dashes, so that lines are told apart without colour, too. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/axis.h"

namespace hatchery::bench {

// Lines that still can be told apart.
inline constexpr std::size_t kLinesPerPlot = 8;

struct Line {
  std::string name;
  // Values of the axes, in the order of x.
  struct Point {
    double x = 0;
    double y = 0;
    std::string label = {};  // if not empty: a dot, and what it says when pointed at
  };
  std::vector<Point> points = {};
};

struct Plot {
  std::string title;
  std::string x_title, y_title;
  Axis x, y;
  bool wide = false;        // as wide as the page, or half of it
  std::vector<Line> lines;  // at most kLinesPerPlot
};

std::string RenderPlot(const Plot& plot);

// Text in HTML, also in attributes: what is markup is escaped, control characters are "?".
std::string Escape(std::string_view text);

}  // namespace hatchery::bench
