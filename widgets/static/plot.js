// A plotly figure that receives deltas. plotly.js comes from the Python package, once per page, on request: nothing is
// fetched from elsewhere and no figure carries its own copy. The figure follows theme and size of its surroundings.

const LIBRARY = "__mlipkit_plotly__";
const QUIET_MS = 250;

// Drawing keeps the page from answering, so none begins just after the user has done something.
let touched = -QUIET_MS;
for (const event of ["click", "pointerdown", "keydown"])
  window.addEventListener(event, () => { touched = performance.now(); }, { capture: true, passive: true });

async function compile(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const code = await new Response(stream).text();
  const module = { exports: {} };
  // Own `module` and hidden `define`: the script must not register with a loader that the page may have.
  new Function("module", "exports", "define", "require", code).call(window, module, module.exports);
  return module.exports?.newPlot ? module.exports : window.Plotly;
}

// Any figure may ask, as the one that asked may be gone before the answer comes: its cell was run again, or its kernel.
function library(model) {
  const page = (window[LIBRARY] ??= waitingPage());
  const answer = (message, buffers) => { if (message.type === "library") page.take(buffers[0].buffer ?? buffers[0]); };
  const leave = () => {
    model.off("msg:custom", answer);
    const place = page.askers.indexOf(model);
    if (place >= 0) page.askers.splice(place, 1);
    if (place === 0) page.ask();
  };
  model.on("msg:custom", answer);
  if (page.askers.push(model) === 1) page.ask();
  page.loaded.then(leave, leave);
  return { loaded: page.loaded, leave };
}

function waitingPage() {
  const page = { askers: [] };
  page.ask = () => {
    // One whose kernel has gone cannot; the next one is asked in its turn.
    try { page.askers[0]?.send({ type: "library" }); } catch { /* no kernel */ }
  };
  page.loaded = new Promise((resolve, reject) => {
    page.take = (bytes) => { page.take = page.ask = () => {}; compile(bytes).then(resolve, reject); };
  });
  const again = setInterval(() => {
    if (page.askers.length) page.askers.push(page.askers.shift());
    page.ask();
  }, 5000);
  page.loaded.then(() => clearInterval(again), () => { clearInterval(again); delete window[LIBRARY]; });
  return page;
}

function themed(el) {
  const style = getComputedStyle(el);
  const value = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  const text = value("--jp-ui-font-color1", "#1f2328");
  const grid = value("--jp-border-color2", "#d0d7de");
  return { text, grid, quiet: value("--jp-ui-font-color2", "#57606a"), back: value("--jp-layout-color1", "#ffffff") };
}

function render({ model, el }) {
  el.classList.add("mlipkit-plot");
  // ipywidgets clears width and height of the outer element, so the size is kept by one inside.
  const box = document.createElement("div");
  box.style.cssText = `position: relative; width: 100%; height: ${model.get("height")}px;`;
  el.append(box);
  const host = document.createElement("div");
  host.style.cssText = "position: absolute; inset: 0;";
  host.setAttribute("role", "figure");
  const said = document.createElement("div");
  said.className = "mk-said";
  said.id = `mk-said-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  host.setAttribute("aria-describedby", said.id);
  const cursor = document.createElement("div");
  cursor.className = "mlipkit-cursor";
  cursor.style.cssText =
    "position: absolute; width: 0; border-left: 2px solid var(--jp-ui-font-color2, #57606a); pointer-events: none; " +
    "display: none; z-index: 2;";
  box.append(host, said, cursor);

  const isMap = model.get("tools") === "map";
  // Made once: plotly takes other functions for another configuration, and then draws everything anew.
  let tools = null, tool = null, colours = "";
  let Plotly = null, figure = null, alive = true, timer = null, lastCost = 0, lastAt = 0, drawn = false;

  const layoutNow = (colour = themed(el)) => {
    colours = JSON.stringify(colour);
    const layout = { ...figure.layout, width: Math.max(220, box.clientWidth), height: model.get("height") };
    layout.paper_bgcolor = "rgba(0,0,0,0)";
    layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { ...layout.font, color: colour.text };
    layout.hoverlabel = { bgcolor: colour.back, bordercolor: colour.grid, font: { color: colour.text } };
    for (const key of Object.keys(layout)) {
      if (!/^[xy]axis\d*$/.test(key)) continue;
      layout[key] = { gridcolor: colour.grid, zerolinecolor: colour.grid, linecolor: colour.quiet, ...layout[key] };
    }
    // On a map Python keeps the part on show, as it draws that part only; the page keeps the tool in hand.
    layout.uirevision = isMap ? figure.revision : "keep";
    if (isMap) { layout.dragmode = tool ?? layout.dragmode; layout.selections = []; }
    layout.datarevision = ++figure.revision;
    return layout;
  };
  const place = () => {
    const x = model.get("cursor");
    const axis = host._fullLayout?.xaxis;
    const size = host._fullLayout?._size;
    if (x === null || !axis || !size || !Number.isFinite(x)) { cursor.style.display = "none"; return; }
    const offset = axis.l2p(x);
    const inside = offset >= -1 && offset <= size.w + 1;
    cursor.style.display = inside ? "block" : "none";
    cursor.style.left = `${size.l + offset - 1}px`;
    cursor.style.top = `${size.t}px`;
    cursor.style.height = `${size.h}px`;
  };
  const draw = async () => {
    timer = null;
    const pause = touched + QUIET_MS - performance.now();
    if (drawn && pause > 0 && !model.get("prompt")) { timer = setTimeout(draw, pause); return; }
    if (!alive || !Plotly || !figure || !el.isConnected || box.clientWidth === 0) return;
    const start = performance.now();
    await Plotly.react(host, figure.data, layoutNow(), isMap ? (tools ??= mapTools()) : {
      displaylogo: false, displayModeBar: "hover", scrollZoom: false,
      modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
    });
    if (!drawn) {
      drawn = true;
      if (isMap) listen();
      else host.on("plotly_click", (event) => {
        const point = event.points[0];
        model.send({ type: "click", x: point.x, y: point.y, curve: point.curveNumber });
      });
      host.on("plotly_relayout", place);
    }
    // Its strokes say nothing by themselves; the buttons above them do.
    for (const drawing of host.querySelectorAll("svg")) drawing.setAttribute("aria-hidden", "true");
    place();
    tell();
    lastAt = performance.now();
    lastCost = lastAt - start;
    // For whoever looks for what keeps the page from answering.
    performance.measure("mlipkit-plot", { start, end: lastAt, detail: model.get("tools") });
    performance.clearMeasures("mlipkit-plot");
  };
  // The picture in words: each curve with its extent and its newest value. Curves come often, words every two seconds.
  let toldAt = -Infinity;
  const tell = () => {
    if (performance.now() - toldAt < 2000) return;
    toldAt = performance.now();
    const title = (axis) => figure.layout[axis]?.title?.text?.replace(/<[^>]+>/g, " ") ?? "";
    const told = figure.data.filter((trace) => trace.visible !== false && trace.hoverinfo !== "skip").map((trace) => {
      const [xs, ys] = [trace.x, trace.y].map((column) => (Array.isArray(column) ? column : []));
      const words = (column) => column.some((value) => typeof value === "string");
      const named = words(xs) ? [xs, ys] : words(ys) ? [ys, xs] : null;
      if (named) return named[0].slice(0, 20).map((word, k) => `${word}: ${named[1][k]}`).join(", ");
      const values = ys.filter((value) => Number.isFinite(value));
      if (!values.length) return "";
      const what = [trace.name, title((trace.yaxis ?? "y").replace("y", "yaxis"))].filter(Boolean).join(", ");
      const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
      const short = (value) => Number(value.toPrecision(3));
      const range = `from ${short(low)} to ${short(high)}, last ${short(values.at(-1))}`;
      return `${what || "curve"}: ${values.length} points ${range}`;
    });
    const text = told.filter(Boolean).slice(0, 12).join(". ");
    if (said.textContent !== text) said.textContent = text;
  };
  const mapTools = () => ({
    displaylogo: false, displayModeBar: true, scrollZoom: false, doubleClick: false,
    modeBarButtonsToRemove: ["sendChartToCloud", "autoScale2d", "resetScale2d", "zoomIn2d", "zoomOut2d"],
    modeBarButtonsToAdd: [{
      name: "whole", title: "Whole map", icon: Plotly.Icons.home, click: () => model.send({ type: "range", x: null }),
    }],
  });
  // Zoom, lasso and box, and picking: all go to Python in data coordinates, which knows every point.
  const listen = () => {
    host.on("plotly_relayout", (change) => {
      if (change.dragmode) tool = change.dragmode;
      const { xaxis, yaxis } = host._fullLayout;
      if (Object.keys(change).some((key) => /^[xy]axis\.range/.test(key)))
        model.send({ type: "range", x: [...xaxis.range], y: [...yaxis.range] });
    });
    host.on("plotly_selected", (event) => {
      const { lassoPoints, range } = event ?? {};
      if (lassoPoints) model.send({ type: "select", kind: "lasso", x: [...lassoPoints.x], y: [...lassoPoints.y] });
      else if (range?.x) {
        const [x0, x1] = range.x, [y0, y1] = range.y;
        model.send({ type: "select", kind: "box", x: [x0, x1, x1, x0], y: [y0, y0, y1, y1] });
      }
    });
    host.addEventListener("pointerdown", (down) => {
      if (!down.target.classList?.contains("drag") || down.button !== 0) return;
      // A loop ends where it began: what counts is how far the pointer was on the way.
      let far = 0;
      const move = (to) => { far = Math.max(far, Math.hypot(to.clientX - down.clientX, to.clientY - down.clientY)); };
      window.addEventListener("pointermove", move, { capture: true });
      window.addEventListener("pointerup", (up) => {
        window.removeEventListener("pointermove", move, { capture: true });
        move(up);
        if (far > 4) return;
        const { xaxis, yaxis, _size } = host._fullLayout;
        const place = host.getBoundingClientRect();
        const x = xaxis.p2d(up.clientX - place.left - _size.l), y = yaxis.p2d(up.clientY - place.top - _size.t);
        const per = (axis) => Math.abs(axis.range[1] - axis.range[0]) / axis._length;
        model.send({ type: "pick", x, y, dx: per(xaxis), dy: per(yaxis) });
      }, { once: true, capture: true });
    }, { capture: true });
  };
  // A picture for paper: light, whatever the theme, in the size that it has on the page.
  const picture = async (format) => {
    const before = colours;
    const layout = layoutNow({ text: "#1f2328", grid: "#d0d7de", quiet: "#57606a", back: "#ffffff" });
    colours = before;
    Object.assign(layout, { paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff" });
    const size = { width: layout.width, height: layout.height, scale: format === "png" ? 2 : 1 };
    try {
      const data = await Plotly.toImage({ data: figure.data, layout }, { format, ...size });
      model.send({ type: "picture", format, data });
    } catch (error) {
      model.send({ type: "picture", format, problem: String(error.message ?? error) });
    }
  };
  // At most eight drawings a second; a slow page draws less often, so that clicks still get through.
  const schedule = () => {
    if (timer !== null || !alive) return;
    const gap = model.get("prompt") ? Math.max(30, lastCost) : Math.min(1000, Math.max(125, 3 * lastCost));
    timer = setTimeout(draw, Math.max(0, lastAt + gap - performance.now()));
  };
  const columns = (message, buffers) => {
    let k = 0;
    const read = () => {
      const view = buffers[k++];
      const bytes = view.buffer ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : view;
      // Plain arrays throughout: plotly mixes them with typed arrays silently wrong.
      return Array.from(new Float64Array(bytes), (value) => (Number.isFinite(value) ? value : null));
    };
    return message.curves.map((index) => ({ index, x: read(), y: read() }));
  };
  const receive = (message, buffers) => {
    if (message.type === "picture") {
      if (drawn) picture(message.format);
      return;
    }
    if (message.type === "figure") {
      figure = { data: message.data, layout: message.layout, revision: (figure?.revision ?? 0) + 1 };
    } else if (figure && message.type === "extend") {
      for (const { index, x, y } of columns(message, buffers)) {
        const trace = figure.data[index];
        if (!trace) continue;
        trace.x = trace.x.concat(x);
        trace.y = trace.y.concat(y);
      }
    } else if (figure && message.type === "replace") {
      for (const { index, x, y } of columns(message, buffers)) Object.assign(figure.data[index] ?? {}, { x, y });
    } else if (figure && message.type === "layout") {
      Object.assign(figure.layout, message.layout);
    } else return;
    schedule();
  };
  const label = () => host.setAttribute("aria-label", model.get("label"));
  const tall = () => { box.style.height = `${model.get("height")}px`; schedule(); };
  model.on("msg:custom", receive);
  model.on("change:height", tall);
  model.on("change:cursor", place);
  model.on("change:label", label);
  label();
  const script = library(model);
  script.loaded.then((loaded) => { Plotly = loaded; schedule(); }, (error) => {
    host.textContent = `The plot cannot be drawn: ${error.message}`;
  });
  model.send({ type: "ready" });

  const sizer = new ResizeObserver(() => schedule());
  sizer.observe(box);
  // The attribute changes before the style sheet of the new theme has come: look again until the colours differ.
  const theme = new MutationObserver(() => {
    for (const pause of [50, 200, 600, 1500, 4000])
      setTimeout(() => { if (alive && JSON.stringify(themed(el)) !== colours) schedule(); }, pause);
  });
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });
  return () => {
    alive = false;
    clearTimeout(timer);
    script.leave();
    sizer.disconnect();
    theme.disconnect();
    model.off("msg:custom", receive);
    model.off("change:height", tall);
    model.off("change:cursor", place);
    model.off("change:label", label);
    if (Plotly && drawn) Plotly.purge(host);
  };
}

// The script comes with the first figure that is made, before any is shown.
const initialize = ({ model }) => library(model).leave;

export default { initialize, render };
