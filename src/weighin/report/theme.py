"""How the page looks: one column, readable on a phone, in the dark and on paper."""

CSS = """
:root {
  color-scheme: light dark;
  --ink: #1f2328; --muted: #57606a; --grid: #d8dee4; --paper: #ffffff; --card: #f6f8fa;
  --blue: #0072b2; --orange: #c24f00; --green: #007a59;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6edf3; --muted: #9aa4af; --grid: #343b44; --paper: #0f1419; --card: #171d24;
    --blue: #56b4e9; --orange: #f0925a; --green: #2fc49a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1rem; max-width: 56rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--grid); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
a { color: var(--blue); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; }
.figures { display: grid; gap: .75rem; padding: 0; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.figures div { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem;
  padding: .75rem; }
.figures dt { color: var(--muted); font-size: .875rem; }
.figures dd { margin: 0; font-size: .875rem; color: var(--muted);
  font-variant-numeric: tabular-nums; }
.figures dd strong { display: block; font-size: 1.5rem; line-height: 1.3; color: var(--ink);
  white-space: nowrap; }
@media (max-width: 32rem) {
  .figures dd strong { font-size: 1.25rem; }
  .figures div:last-child:nth-child(odd) { grid-column: 1 / -1; }
}
.warning { border-left: .3rem solid var(--orange); background: var(--card);
  padding: .6rem .9rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; min-width: 100%;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; color: var(--muted); padding-bottom: .3rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--grid); text-align: left;
  vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
.number { text-align: right; white-space: nowrap; }
thead th { color: var(--muted); font-weight: 600; }
figure { margin: 1rem 0; }
figcaption { color: var(--muted); font-size: .875rem; }
.chart { overflow-x: auto; }
.chart svg { display: block; max-width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
img { max-width: 100%; height: auto; display: block; }
.gallery { display: grid; gap: .75rem; list-style: none; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); }
.gallery figure { margin: 0; background: var(--card); border: 1px solid var(--grid);
  border-radius: .5rem; padding: .5rem; height: 100%; }
.gallery img, .gallery .blank { width: 100%; height: 7rem; object-fit: contain; }
.gallery .blank { display: grid; place-items: center; color: var(--muted); }
pre { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem;
  padding: .75rem; overflow-x: auto; overflow-wrap: normal; font-size: .85rem; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; }
details summary { cursor: pointer; }
:focus-visible { outline: .15rem solid var(--blue); outline-offset: .15rem; }
@media print {
  :root { --ink: #1f2328; --muted: #57606a; --grid: #d8dee4; --paper: #ffffff; --card: #f6f8fa;
    --blue: #0072b2; --orange: #c24f00; --green: #007a59; }
  nav { display: none; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr, .figures div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
}
"""
