// Draws the figures in the page's own ink, again when light and dark change, and narrower for paper.
"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("figure-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const GREY = "#767676", PAPER_WIDTH = 660, PAPER_HALF = 318; // CSS pixels of A4 less its margins

  function drawn(layout, node, paper) {
    const themed = coloured(layout, layout, paper);
    const wide = node.closest("figure").classList.contains("wide");
    const width = paper ? (wide ? PAPER_WIDTH : PAPER_HALF) : node.clientWidth;
    const narrow = width < 480, tight = width < 800 && layout.meta.tight;
    if (tight) {
      themed.height = tight.height;
      themed.yaxis.range = tight.yaxis_range;
      tight.ay.forEach((ay, n) => { themed.annotations[n].ay = ay; });
    }
    delete themed.title; // it stands above in the page's own type, where it can wrap, and so does the legend
    themed.showlegend = false;
    themed.margin.t = 12;
    themed.height -= 50;
    themed.width = width;
    if (narrow) {
      themed.height = wide ? themed.height - 8 : paper ? 252 : 312;
      themed.margin = { l: wide ? 50 : 38, r: 6, t: 10, b: 46 };
      themed.font.size = 11;
      const title = themed.xaxis.title;
      if (title) title.text = title.text.replace(" scale; 0 is the untouched subject", "; 0: untouched");
    }
    return themed;
  }

  function coloured(data, layout, paper) {
    const onDark = dark.matches && !paper ? layout.meta.on_dark : {};
    const inks = { [GREY]: inkOf(paper), ...onDark };
    return JSON.parse(JSON.stringify(data).replace(/#[0-9A-Fa-f]{6}/g, (found) => inks[found] || found));
  }

  function inkOf(paper) {
    return paper ? "#444444" : getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
  }

  function draw(paper) {
    for (const node of document.querySelectorAll("[data-figure]")) {
      const spec = specs[node.dataset.figure];
      Plotly.react(node, coloured(spec.data, spec.layout, paper), drawn(spec.layout, node, paper), { displayModeBar: false });
    }
  }

  let paper = false, waiting = 0, opened = [];
  const screen = () => { if (!paper) draw(false); };
  draw(false);
  dark.addEventListener("change", screen);
  const resized = new ResizeObserver(() => { clearTimeout(waiting); waiting = setTimeout(screen, 80); });
  resized.observe(document.querySelector(".figures"));
  addEventListener("beforeprint", () => {
    paper = true;
    // Text that was asked for stays closed, and tables that would fill many pages (they are in the run's files).
    opened = [...document.querySelectorAll("details:not([open]):not(.held)")].filter((d) => d.querySelectorAll("tr").length <= 100);
    for (const node of opened) node.open = true;
    draw(true);
  });
  addEventListener("afterprint", () => {
    paper = false;
    for (const node of opened) node.open = false;
    draw(false);
  });
})();
