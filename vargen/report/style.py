"""The style sheet of the report: light and dark, wide and narrow."""

STYLE = """
:root { --paper:#fbfaf7; --card:#ffffff; --ink:#1c1c20; --soft:#6a6a72; --rule:#e6e3dc; --accent:#b4451f; --second:#2b6a8f; }
@media (prefers-color-scheme: dark) {
  :root { --paper:#131417; --card:#1b1d21; --ink:#ececf0; --soft:#9a9aa4; --rule:#2d2f36; --accent:#ff9467; --second:#76bfe6; }
}
* { box-sizing:border-box; margin:0; }
html { -webkit-text-size-adjust:100%; }
body { background:var(--paper); color:var(--ink); font:17px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif; }
main { max-width:940px; margin:0 auto; padding:clamp(28px,7vw,80px) clamp(18px,5vw,40px) 48px; }
h1,h2,.tiles strong { font-family:"Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua",Georgia,serif; font-weight:600; line-height:1.12; }
h1 { font-size:clamp(34px,6.4vw,58px); letter-spacing:-.015em; text-wrap:balance; }
h2 { font-size:clamp(25px,3.6vw,32px); letter-spacing:-.01em; }
.kicker { color:var(--accent); font-weight:650; letter-spacing:.14em; text-transform:uppercase; font-size:13px; margin-bottom:14px; }
.summary { font-size:clamp(17px,2.2vw,20px); color:var(--soft); max-width:44em; margin-top:18px; text-wrap:pretty; }
section { margin-top:clamp(52px,8vw,84px); }
.lead { color:var(--soft); margin:6px 0 22px; text-wrap:pretty; }
img { display:block; width:100%; aspect-ratio:1; object-fit:cover; image-rendering:pixelated; border-radius:4px; background:var(--rule); }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(145px,1fr)); gap:1px; margin-top:36px; background:var(--rule); border:1px solid var(--rule); border-radius:12px; overflow:hidden; }
.tiles div { background:var(--card); padding:20px; display:flex; flex-direction:column; }
.tiles strong { font-size:29px; white-space:nowrap; font-variant-numeric:lining-nums; }
.tiles span { margin-top:4px; font-size:15px; }
.tiles em { font-style:normal; font-size:14px; color:var(--soft); }
.samples { display:grid; gap:6px; }
.row { display:grid; grid-template-columns:var(--names) 1fr; align-items:center; gap:14px; }
.name { color:var(--soft); font-variant-numeric:tabular-nums; text-align:right; overflow-wrap:anywhere; line-height:1.2; }
.name small { display:block; font-size:12px; white-space:nowrap; }
.pairs .name, .growth .name { display:block; text-align:left; font-size:13px; margin-bottom:3px; white-space:nowrap; overflow:hidden; text-overflow:ellipsis; }
.caveats { margin-top:28px; padding:16px 20px; border-left:4px solid var(--accent); background:var(--card); }
.caveats h3 { font-size:16px; } .caveats ul { margin:8px 0 0 1.1em; padding:0; } .caveats li { margin-top:6px; color:var(--soft); }
.strip { display:grid; grid-template-columns:repeat(var(--columns),1fr); gap:6px; }
.steps { display:grid; grid-template-columns:repeat(var(--columns),1fr); gap:6px; }
.growth { display:grid; gap:18px 32px; grid-template-columns:repeat(auto-fit,minmax(min(100%,calc(var(--columns)*72px)),1fr)); }
.steps span { text-align:center; color:var(--soft); font-size:14px; font-variant-numeric:tabular-nums; white-space:nowrap; }
.pairs { display:grid; grid-template-columns:repeat(10,1fr); gap:18px 6px; }
figure img + img { margin-top:4px; }
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr)); gap:22px; }
.chart { background:var(--card); border:1px solid var(--rule); border-radius:12px; padding:16px 16px 6px; min-width:0; }
figcaption { display:flex; flex-wrap:wrap; gap:2px 16px; align-items:baseline; margin-bottom:8px; font-size:15px; }
figcaption span { font-size:14px; color:var(--soft); font-variant-numeric:tabular-nums; white-space:nowrap; }
figcaption span::before { content:""; display:inline-block; width:14px; height:3px; border-radius:2px; background:var(--line); margin-right:6px; vertical-align:middle; }
svg { display:block; width:100%; height:auto; overflow:visible; }
svg text { font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; fill:var(--soft); font-variant-numeric:tabular-nums; }
.rule { stroke:var(--rule); stroke-width:1; }
polyline { fill:none; stroke:var(--line); stroke-linejoin:round; stroke-linecap:round; vector-effect:non-scaling-stroke; }
.line { stroke-width:2.2; } .raw { stroke-width:1; opacity:.28; }
.s0 { --line:var(--accent); } .s1 { --line:var(--second); } .s2 { --line:#8a8f3c; } .s3 { --line:#8e63b5; }
.marks circle { fill:var(--line); } .marks figcaption span::before { display:none; } .marks g text { fill:var(--ink); }
.wide { overflow-x:auto; } .wide td { font-size:15px; } .wide td small { color:var(--soft); } .wide th small { font-size:13px; }
.beside { display:grid; gap:6px; grid-template-columns:var(--names) repeat(var(--systems),minmax(28px,1fr)); align-items:center; overflow-x:auto; }
.beside b { font-size:14px; text-align:center; line-height:1.2; align-self:end; justify-self:center; }
.upright b { writing-mode:vertical-rl; transform:rotate(180deg); text-align:left; }
table { width:100%; border-collapse:collapse; font-variant-numeric:tabular-nums; }
th,td { padding:11px 0; border-bottom:1px solid var(--rule); text-align:left; vertical-align:baseline; }
.levels { margin-top:28px; } .levels + .lead { margin-top:14px; }
thead th { color:var(--soft); font-size:14px; font-weight:500; padding-top:0; }
tbody th { font-weight:600; padding-right:16px; } td + th { padding-left:14px; }
th small { display:block; font-weight:400; font-size:14px; color:var(--soft); line-height:1.35; }
td, thead th:not(:first-child) { text-align:right; white-space:nowrap; padding-left:14px; }
td + td { color:var(--soft); }
dl { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr)); gap:16px 28px; margin-top:20px; }
dt { font-size:14px; color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
dl + p { margin-top:28px; }
pre { background:var(--card); border:1px solid var(--rule); border-radius:8px; padding:14px 16px; margin-top:8px; overflow-x:auto; font:13.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace; }
details { margin-top:24px; } summary { cursor:pointer; color:var(--accent); }
footer { margin-top:72px; padding-top:20px; border-top:1px solid var(--rule); color:var(--soft); font-size:14px; }
@media (max-width:620px) {
  body { font-size:16px; }
  .samples { --columns:8 !important; } .strip img:nth-child(n+9) { display:none; }
  .strip,.steps { gap:3px; } .row { gap:8px; } img { border-radius:2px; }
  .pairs { grid-template-columns:repeat(5,1fr); gap:14px 4px; } .pairs figure:nth-child(n+11) { display:none; }
  .tiles { grid-template-columns:1fr 1fr; } .tiles div { padding:14px; } .tiles strong { font-size:23px; }
  .steps span { font-size:11px; } .steps:nth-child(n+7) { display:none; }
}
"""  # noqa: E501
