#include "bench/html.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/files.h"
#include "base/process.h"
#include "base/run.h"
#include "tests/bench/sample_report.h"

namespace hatchery::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

// Every text of a report, made to do harm if it gets onto the page as it is.
Report HostileReport() {
  const std::string hostile = "</title><script>document.title='owned'</script>\"'><img src=x>&\033";
  Report report = SampleReport();
  Environment& e = report.environment;
  for (std::string* text : {&e.time, &e.hatchery, &e.commit, &e.cpu, &e.kernel, &e.virtualization,
                            &e.accelerator, &e.vmm, &e.template_digest, &e.load, &report.command}) {
    *text = hostile;
  }
  for (Section& section : report.sections) {
    section.benchmark = hostile;
    section.parameters[hostile] = hostile;
    section.notes = {hostile};
    for (Series& series : section.series) {
      series.name = hostile;
      series.failures[hostile] = 1;
    }
    for (Figure& figure : section.figures) figure.name = hostile;
    for (Curve& curve : section.curves) curve.name = curve.plot = curve.x = curve.y = hostile;
  }
  return report;
}

TEST(Html, EscapesEverything) {
  const std::string page = RenderHtml(HostileReport());
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  EXPECT_THAT(page, Not(HasSubstr("\033")));
}

TEST(Html, RefersToNothingOutside) {
  const std::string page = RenderHtml(SampleReport());
  for (const char* word : {"http:", "https:", "//", "src=", "@import", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(word)));
  }
}

TEST(Html, HasWhatTheReportHas) {
  const Report report = SampleReport();
  const std::string page = RenderHtml(report);
  for (const Section& section : report.sections) {
    EXPECT_THAT(page, HasSubstr("<h2>" + section.benchmark + "</h2>"));
    for (const Series& series : section.series) EXPECT_THAT(page, HasSubstr(series.name));
  }
  EXPECT_THAT(page, HasSubstr("6 of 8 targets met"));
  EXPECT_THAT(page, HasSubstr("MISSED by"));
  EXPECT_THAT(page, HasSubstr(report.environment.template_digest));
  EXPECT_THAT(page, HasSubstr(report.command));
}

TEST(Html, AnEmptyReportIsAPage) {
  EXPECT_THAT(RenderHtml({}), HasSubstr("</html>"));
  Report report{.sections = {{.benchmark = "b", .series = {{.key = "k", .name = "n"}}}}};
  EXPECT_THAT(RenderHtml(report), Not(HasSubstr("<polyline"))) << "there are no samples";
}

// Looks at the page as it is laid out, and leaves what is wrong with it as an attribute of <html>.
// It stands before the page's Content-Security-Policy, which forbids scripts after it.
constexpr const char* kInspector = R"js(<script>
addEventListener('load', () => {
  const problems = [];
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const overlap = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 &&
                            a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const expectApart = (elements, what) => elements.forEach((one, i) =>
      elements.slice(i + 1).forEach(other => {
        if (overlap(one.getBoundingClientRect(), other.getBoundingClientRect())) {
          problems.push(what + ' overlap: ' + one.textContent + ' and ' + other.textContent);
        }
      }));
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map(part => {
      const c = part / 255;
      return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const card = getComputedStyle(document.querySelector('section')).backgroundColor;
  if (contrast(getComputedStyle(document.body).color, card) < 7) problems.push('text is hard to read');

  const plots = all('svg.plot');
  for (const plot of plots) {
    const name = plot.getAttribute('aria-label');
    const frame = plot.getBoundingClientRect();
    if (frame.width < 300 || frame.height < 200) problems.push(name + ' is too small');
    const box = plot.viewBox.baseVal;
    const lines = all('polyline', plot);
    if (lines.length === 0) problems.push(name + ' has no line');
    for (const line of lines) {
      const at = line.getBBox();
      if (!(at.width > 0) || at.x < 0 || at.y < 0 || at.x + at.width > box.width ||
          at.y + at.height > box.height) {
        problems.push(name + ': a line is not in the plot');
      }
      if (contrast(getComputedStyle(line).stroke, card) < 2.9) {
        problems.push(name + ': a line is hard to see: ' + getComputedStyle(line).stroke);
      }
    }
    const labels = all('text', plot);
    if (labels.length < 5) problems.push(name + ' has too few labels');
    expectApart(labels, name + ': labels');
    for (const label of labels) {
      const at = label.getBoundingClientRect();
      if (at.left < frame.left || at.right > frame.right || at.bottom > frame.bottom) {
        problems.push(name + ': a label is cut off: ' + label.textContent);
      }
    }
  }
  for (const legend of all('.legend')) expectApart(all('li', legend), 'legends');
  expectApart(all('figure'), 'plots');
  expectApart(all('section'), 'sections');
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) {
    problems.push('the page is wider than its window');
  }
  const loaded = performance.getEntriesByType('resource').length;
  if (loaded > 0) problems.push('the page loads ' + loaded + ' other files');
  const html = document.documentElement;
  html.setAttribute('data-problems', problems.join('; '));
  html.setAttribute('data-plots', plots.length);
  html.setAttribute('data-lines', all('polyline').length);
  html.setAttribute('data-title', document.title);
  html.setAttribute('data-dark', luminance(card) < 0.2);
});
</script>)js";

class InChromium : public testing::Test {
 protected:
  // What Chromium makes of the page: its document after it was laid out.
  void Open(const Report& report, std::vector<std::string> options = {}) {
    std::string page = RenderHtml(report);
    const std::string_view before = "<meta http-equiv";
    ASSERT_NE(page.find(before), std::string::npos);
    page.insert(page.find(before), kInspector);
    auto scratch = TempDir::Create(fs::temp_directory_path(), "hatchery-html-");
    ASSERT_TRUE(scratch.has_value()) << ToString(scratch.error());
    const fs::path file = scratch->path() / "report.html";
    std::ofstream(file) << page;
    std::vector<std::string> command = {"chromium",
                                        "--headless",
                                        "--no-sandbox",  // refuses to run as root otherwise
                                        "--disable-gpu",
                                        "--no-first-run",
                                        "--disable-background-networking",
                                        "--disable-quic",
                                        "--disable-dev-shm-usage",
                                        "--user-data-dir=" + (scratch->path() / "profile").string(),
                                        "--dump-dom"};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back("file://" + file.string());
    asio::io_context io;
    PosixSpawner spawner(io.get_executor());
    const auto output =
        RunUntilDone(io, RunCommand(spawner, command, After(std::chrono::seconds(90))));
    ASSERT_TRUE(output.has_value()) << ToString(output.error());
    ASSERT_EQ(ToString(output->status), "exit code 0") << output->err.substr(0, 4000);
    document_ = output->out;
  }

  std::string Told(const std::string& name) const {
    const std::string start = "data-" + name + "=\"";
    const auto at = document_.find(start);
    if (at == std::string::npos) return "(not told)";
    return document_.substr(at + start.size(),
                            document_.find('"', at + start.size()) - at - start.size());
  }

  std::string document_;
};

TEST_F(InChromium, PlotsAreLaidOut) {
  ASSERT_NO_FATAL_FAILURE(Open(SampleReport(), {"--window-size=1200,2400"}));
  EXPECT_EQ(Told("problems"), "");
  EXPECT_EQ(Told("plots"), "9");
  EXPECT_EQ(Told("lines"), "33");
  EXPECT_EQ(Told("title"), "Hatchery benchmarks: cold-start, burst, density, rpc, resize");
  EXPECT_EQ(Told("dark"), "false");
}

TEST_F(InChromium, ADarkSystemGetsADarkPage) {
  ASSERT_NO_FATAL_FAILURE(
      Open(SampleReport(), {"--window-size=1200,2400", "--blink-settings=preferredColorScheme=0"}));
  EXPECT_EQ(Told("problems"), "");
  EXPECT_EQ(Told("dark"), "true");
}

TEST_F(InChromium, ANarrowWindowScrollsItsPlotsOnly) {
  ASSERT_NO_FATAL_FAILURE(Open(SampleReport(), {"--window-size=560,2400"}));
  EXPECT_EQ(Told("problems"), "");
}

TEST_F(InChromium, HostileTextsDoNothing) {
  ASSERT_NO_FATAL_FAILURE(Open(HostileReport(), {"--window-size=1200,2400"}));
  EXPECT_THAT(Told("title"), HasSubstr("Hatchery benchmarks"));
  EXPECT_EQ(Told("lines"), "33") << "plots are all there";
}

}  // namespace
}  // namespace hatchery::bench
