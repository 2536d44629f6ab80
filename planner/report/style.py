"""The report's style sheet: one column, system fonts, light and dark, readable on a phone and on paper."""

CSS = """
:root{color-scheme:light dark;--bg:#f7f8fa;--card:#fff;--ink:#17202a;--soft:#5d6b7a;--line:#dfe4ea;--accent:#1f5fd0;
--good:#177245;--warn:#a15c00;--bad:#b3261e;--none:#6b7280;
--goodbg:#e5f4ec;--warnbg:#fdf0dc;--badbg:#fbe6e4;--nonebg:#eceff3;
--c0:#3b74d8;--c1:#e08a1e;--c2:#2f9e6e;--c3:#b455c4;--c4:#c94f4f;--c5:#2aa3b5;--c6:#8a7a2d;--c7:#6a63d8;--free:#e3e7ed}
@media(prefers-color-scheme:dark){:root{--bg:#11151b;--card:#1a2029;--ink:#e8edf3;--soft:#9aa7b6;--line:#2d3642;
--accent:#7aa8ff;--good:#58c48d;--warn:#e6a74c;--bad:#f08a82;--none:#9aa3af;--goodbg:#15301f;--warnbg:#352710;
--badbg:#3b1a18;--nonebg:#262d37;--free:#2b333f}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:27px;line-height:1.2;margin:0 0 6px;letter-spacing:-.015em}
h2{font-size:19px;margin:38px 0 4px;letter-spacing:-.01em}
h3{font-size:15px;margin:0}
p{margin:0 0 10px;max-width:75ch}.lead{font-size:17px;max-width:70ch;margin-bottom:18px}
.soft,small{color:var(--soft)}small{font-size:12.5px}.num{font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:18px 0 8px}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;min-width:0}
.tile b{display:block;white-space:nowrap;font-size:21px;
line-height:1.25;letter-spacing:-.01em;font-variant-numeric:tabular-nums}
.tile span{font-size:13px;color:var(--soft)}
.badge{display:inline-block;padding:1px 9px;border-radius:99px;font-size:12.5px;font-weight:600;white-space:nowrap}
.met{color:var(--good);background:var(--goodbg)}.margin_consumed{color:var(--warn);background:var(--warnbg)}
.unmet{color:var(--bad);background:var(--badbg)}.no_data{color:var(--none);background:var(--nonebg)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:12px;margin-top:12px}
.tile b small{font-weight:500}.alerts{align-items:start}
.card header{display:flex;justify-content:space-between;gap:10px;align-items:baseline;margin-bottom:6px}
.card ul{margin:6px 0 0;padding-left:18px}.card li{margin:3px 0}
.alert{border-left:4px solid var(--bad)}.alert.margin_consumed_{border-left-color:var(--warn)}
.alert.no_data_{border-left-color:var(--none)}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px;margin-top:12px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-size:12.5px;font-weight:600;color:var(--soft);text-align:left;white-space:nowrap}
td.wide{min-width:210px}th,td{padding:9px 12px;border-bottom:1px solid var(--line);vertical-align:top}
tbody tr:last-child td{border-bottom:0}td.r,th.r{text-align:right}
td .why{display:block;color:var(--soft);font-size:12.5px;max-width:46ch}
.gauge{display:block;width:100%;min-width:110px;height:12px;margin:2px 0}
.rail{stroke:var(--line);stroke-width:2}.limit{stroke:var(--ink);stroke-width:1.5;vector-effect:non-scaling-stroke}
.reach{stroke-width:5}.mark{stroke-width:2;vector-effect:non-scaling-stroke}
.within{stroke:var(--good)}.tight{stroke:var(--warn)}.over{stroke:var(--bad)}
.card>h3+small{display:block;min-height:2.4em}.plain td:first-child{white-space:nowrap;width:1%}
.plain td:last-child{width:1%}.plot{display:block;width:100%;max-width:400px;height:auto}
.plot text{fill:var(--soft);font-size:11px}.plot .label{font-size:11.5px}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.slo{stroke:var(--bad);stroke-dasharray:4 3}.plot .slo-text{fill:var(--bad)}
.stairs{fill:none;stroke:var(--soft);stroke-width:1.2;opacity:.55}
.option{fill:var(--soft);opacity:.65}.option.guess{fill:var(--card);stroke:var(--soft);opacity:1}
.chosen{fill:var(--accent);stroke:var(--card);stroke-width:2}.runner-up{fill:var(--card);stroke:var(--accent);stroke-width:2}
.bar{display:block;width:100%;height:16px;border-radius:4px;margin:6px 0}
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}.c5{fill:var(--c5)}
.c6{fill:var(--c6)}.c7{fill:var(--c7)}.free{fill:var(--free)}.plain{fill:var(--soft)}.best{fill:var(--accent)}
.chips{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:12.5px;color:var(--soft)}
.chips i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:5px}
.chips svg{width:9px;height:9px;margin-right:5px;border-radius:2px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:12.5px;color:var(--soft);margin:2px 0 0}
.legend svg{width:12px;height:12px;vertical-align:-2px;margin-right:4px}
details{margin-top:12px}summary{cursor:pointer;color:var(--accent);font-size:14px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:12px 0 0;font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:700px){main{padding:18px 14px 40px}h1{font-size:22px}.lead{font-size:16px}
.stack thead{display:none}.stack tr{display:block;padding:10px 4px;border-bottom:1px solid var(--line)}
.stack tbody tr:last-child{border-bottom:0}
.stack td{display:flex;justify-content:space-between;gap:14px;border:0;padding:4px 12px;text-align:right}
.stack td::before{content:attr(data-label);color:var(--soft);font-size:12.5px;flex:none;text-align:left}
.stack td:first-child{font-size:16px}.stack td>*{text-align:right}.stack td .gauge{width:50vw}
.stack td:empty{display:none}dl{grid-template-columns:1fr}dt{margin-top:6px}}
@media print{body{background:#fff}.card,.tile,.scroll{break-inside:avoid}}
"""
