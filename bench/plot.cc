#include "bench/plot.h"

#include <array>
#include <cmath>
#include <cstdio>

#include "cmd/hatchery/table.h"

namespace hatchery::bench {

namespace {

// In pixels of a page that has room for them.
struct Box {
  double width, height;
  double left = 68, right = 22, top = 12, bottom = 52;
  double X(double at) const { return left + at * (width - left - right); }
  double Y(double at) const { return height - bottom - at * (height - top - bottom); }
};
constexpr Box kWide = {.width = 1040, .height = 400};
constexpr Box kHalf = {.width = 510, .height = 320};

std::string Px(double number) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f", number);
  return text.data();
}

std::string Attribute(const char* name, const std::string& value) {
  return std::string(" ") + name + "=\"" + value + "\"";
}

std::string Rule(double x1, double y1, double x2, double y2, const char* kind) {
  return "<line" + Attribute("class", kind) + Attribute("x1", Px(x1)) + Attribute("y1", Px(y1)) +
         Attribute("x2", Px(x2)) + Attribute("y2", Px(y2)) + "/>";
}

std::string Label(double x, double y, const char* anchor, const std::string& text,
                  const std::string& more = "") {
  return "<text" + Attribute("x", Px(x)) + Attribute("y", Px(y)) +
         Attribute("text-anchor", anchor) + more + ">" + Escape(text) + "</text>";
}

std::string Axes(const Plot& plot, const Box& box) {
  std::string svg = "<g class=\"axes\">";
  for (const Tick& tick : plot.x.ticks) {
    const double x = box.X(tick.at);
    svg += Rule(x, box.Y(0), x, box.Y(1), tick.label.empty() ? "minor" : "grid");
    if (!tick.label.empty()) svg += Label(x, box.Y(0) + 21, "middle", tick.label);
  }
  for (const Tick& tick : plot.y.ticks) {
    const double y = box.Y(tick.at);
    svg += Rule(box.X(0), y, box.X(1), y, tick.label.empty() ? "minor" : "grid");
    if (!tick.label.empty()) svg += Label(box.X(0) - 8, y + 4, "end", tick.label);
  }
  svg += Rule(box.X(0), box.Y(0), box.X(1), box.Y(0), "axis");
  svg += Label(box.X(0.5), box.height - 8, "middle", plot.x_title, " class=\"title\"");
  return svg + "</g>\n";
}

std::string Class(std::size_t line) { return "c" + std::to_string(line % kLinesPerPlot); }

// Points that fall on the same pixel as the one before are left out.
std::string Draw(const Plot& plot, const Line& line, const std::string& colour, const Box& box) {
  std::string points, dots;
  double last_x = -10, last_y = -10;
  for (std::size_t i = 0; i < line.points.size(); ++i) {
    const Line::Point& point = line.points[i];
    const double x = box.X(plot.x.place(point.x));
    const double y = box.Y(plot.y.place(point.y));
    const bool ends = i == 0 || i + 1 == line.points.size();
    if (ends || std::hypot(x - last_x, y - last_y) >= 1) {
      points += (points.empty() ? "" : " ") + Px(x) + "," + Px(y);
      last_x = x;
      last_y = y;
    }
    if (point.label.empty()) continue;
    dots += "<circle" + Attribute("class", "dot " + colour) + Attribute("cx", Px(x)) +
            Attribute("cy", Px(y)) + " r=\"3.5\"><title>" + Escape(point.label) +
            "</title></circle>";
  }
  return "<polyline" + Attribute("class", "line " + colour) + Attribute("points", points) +
         "><title>" + Escape(line.name) + "</title></polyline>" + dots + "\n";
}

std::string Legend(const Plot& plot) {
  std::string html = "<ul class=\"legend\">";
  for (std::size_t i = 0; i < plot.lines.size(); ++i) {
    html += "<li><svg width=\"30\" height=\"10\" aria-hidden=\"true\"><line" +
            Attribute("class", "line " + Class(i)) +
            " x1=\"1\" y1=\"5\" x2=\"29\" y2=\"5\"/></svg>" + Escape(plot.lines[i].name) + "</li>";
  }
  return html + "</ul>\n";
}

}  // namespace

std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : cli::Printable(text)) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      case '\'': escaped += "&#39;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

std::string RenderPlot(const Plot& plot) {
  const Box& box = plot.wide ? kWide : kHalf;
  std::string html = std::string("<figure") + (plot.wide ? " class=\"wide\"" : "") +
                     "><figcaption><h3>" + Escape(plot.title) + "</h3><span>" +
                     Escape(plot.y_title) + "</span></figcaption>\n" + Legend(plot);
  html += "<div class=\"scroll\"><svg class=\"plot\" role=\"img\"" +
          Attribute("aria-label", Escape(plot.title)) +
          Attribute("viewBox", "0 0 " + Px(box.width) + " " + Px(box.height)) + ">\n" +
          Axes(plot, box);
  for (std::size_t i = 0; i < plot.lines.size(); ++i) {
    html += Draw(plot, plot.lines[i], Class(i), box);
  }
  return html + "</svg></div></figure>\n";
}

}  // namespace hatchery::bench
