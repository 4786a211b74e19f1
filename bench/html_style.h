// The style sheet of a report's page. Colours are variables, so that light, dark and paper differ
// in one place each. The lines' colours are told apart with any colour vision (after Okabe and
// Ito), and by their dashes besides.
#pragma once

namespace hatchery::bench {

inline constexpr const char* kStyle = R"css(
:root {
  color-scheme: light;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b2330; --soft: #5b6675; --edge: #dde1e7;
  --grid: #e3e7ec; --minor: #f1f3f6; --good: #0b7a4b; --good-back: #e2f4eb;
  --bad: #b3261e; --bad-back: #fbe6e4; --accent: #0b6bb8;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b8548f;
  --c4: #c98a00; --c5: #3a9bd9; --c6: #7d6608; --c7: #4d5563;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --page: #12161c; --card: #1a2028; --ink: #e5e9ef; --soft: #9aa5b4; --edge: #2e3742;
    --grid: #2b333e; --minor: #212832; --good: #5bd6a0; --good-back: #143527;
    --bad: #ff8f86; --bad-back: #43201e; --accent: #6bb5f2;
    --c0: #4ea8de; --c1: #ff8a4c; --c2: #2cc79b; --c3: #e59bc4;
    --c4: #f2b84b; --c5: #9bd3f7; --c6: #cdbb5a; --c7: #b5bdc9;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 21px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 0; }
p { margin: 0 0 12px; }
.soft, figcaption span { color: var(--soft); }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
nav { margin: 14px 0 22px; display: flex; flex-wrap: wrap; gap: 6px 18px; }
section, .card {
  background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 22px 20px; margin: 0 0 22px;
}
.head { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 8px 20px; margin-bottom: 12px; }
.chip { display: inline-block; border-radius: 99px; padding: 1px 10px; font-weight: 600; font-size: 13px; white-space: nowrap; }
.ok { color: var(--good); background: var(--good-back); }
.missed { color: var(--bad); background: var(--bad-back); }
.parameters { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 18px; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 26px 18px; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; }
figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 12px; }
figcaption span { font-size: 13px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 6px 0 4px; padding: 0; font-size: 13px; }
.legend li { display: flex; align-items: center; gap: 7px; }
.legend svg { flex: none; }
.scroll { overflow-x: auto; }
svg.plot { display: block; width: 100%; height: auto; font-size: 12px; font-variant-numeric: tabular-nums; }
svg.plot text { fill: var(--soft); }
.grid, .minor, .axis { stroke: var(--grid); stroke-width: 1; }
.minor { stroke: var(--minor); }
.axis { stroke: var(--soft); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line:hover { stroke-width: 3.5; }
.dot { stroke: var(--card); stroke-width: 1.2; }
.line.c0 { stroke: var(--c0); } .dot.c0 { fill: var(--c0); }
.line.c1 { stroke: var(--c1); stroke-dasharray: 8 4; } .dot.c1 { fill: var(--c1); }
.line.c2 { stroke: var(--c2); stroke-dasharray: 2 4; } .dot.c2 { fill: var(--c2); }
.line.c3 { stroke: var(--c3); stroke-dasharray: 10 4 2 4; } .dot.c3 { fill: var(--c3); }
.line.c4 { stroke: var(--c4); } .dot.c4 { fill: var(--c4); }
.line.c5 { stroke: var(--c5); stroke-dasharray: 8 4; } .dot.c5 { fill: var(--c5); }
.line.c6 { stroke: var(--c6); stroke-dasharray: 2 4; } .dot.c6 { fill: var(--c6); }
.line.c7 { stroke: var(--c7); stroke-dasharray: 10 4 2 4; } .dot.c7 { fill: var(--c7); }
h3.table { margin: 24px 0 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 12.5px; }
th, td { padding: 5px 9px; border-bottom: 1px solid var(--edge); vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; }
.n { text-align: right; white-space: nowrap; }
.notes { margin: 22px 0 0; padding-left: 18px; color: var(--soft); font-size: 13.5px; }
.failed { color: var(--bad); }
details { margin-top: 18px; }
summary { cursor: pointer; color: var(--soft); font-size: 13.5px; }
@media (max-width: 760px) {
  .plots { grid-template-columns: 1fr; }
  svg.plot { min-width: 500px; }
  figure.wide svg.plot { min-width: 720px; }
}
@media print {
  body { background: none; font-size: 12px; }
  main { max-width: none; padding: 0; }
  section, .card { border: 0; padding: 0; margin: 0 0 26px; }
  nav { display: none; }
  tr { break-inside: avoid; }
  .chip { padding: 0; background: none; }
}
)css";

}  // namespace hatchery::bench
