// Head of every view: state, title, progress and the age of the last sign of life. It runs in the page, so it still
// speaks when the kernel cannot. It also makes the buttons of the view safe for the keyboard and reports the theme.

const QUIET_AFTER_S = 8;

function words(seconds) {
  if (seconds < 1.5) return "updated 1 s ago";
  if (seconds < 90) return `updated ${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `updated ${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `updated ${Math.round(seconds / 3600)} h ago`;
  return `updated ${Math.round(seconds / 86400)} days ago`;
}

function isDark() {
  const light = document.body.getAttribute("data-jp-theme-light");
  if (light !== null) return light === "false";
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

const WORD = /[\p{L}\p{N}]/u;

function name(node, text) {
  if (text && node.getAttribute("aria-label") !== text) node.setAttribute("aria-label", text);
}

// What a screen reader needs and the parts do not say by themselves.
function speak(root) {
  // A button with a sign alone has the name of its tip.
  for (const node of root.querySelectorAll("button[title]"))
    if (!WORD.test(node.textContent)) name(node, node.title);
  for (const node of root.querySelectorAll(".mlipkit-scene")) {
    node.setAttribute("role", "img");
    for (const part of node.querySelectorAll("canvas, svg")) part.setAttribute("aria-hidden", "true");
    name(node, `Atoms: ${node.parentElement.querySelector(".mk-said")?.textContent.trim() || "none"}`);
  }
  // Fields of a form stand beside their labels, not inside.
  for (const field of root.querySelectorAll(".mlipkit-field"))
    for (const node of field.querySelectorAll("input, select"))
      name(node, field.querySelector(".widget-label")?.textContent.trim());
  for (const node of root.querySelectorAll("input, select"))
    if (!node.labels?.length && !node.hasAttribute("aria-label")) name(node, node.closest("[title]")?.title);
  // News are read out only in a region that was there before them.
  for (const node of root.querySelectorAll(".widget-html-content [role=status], .widget-html-content [role=alert]")) {
    const region = node.closest(".widget-html");
    const way = node.getAttribute("role") === "alert" ? "assertive" : "polite";
    if (region && !region.hasAttribute("aria-live")) region.setAttribute("aria-live", way);
  }
}

// JupyterLab takes a single letter pressed on a focused button as a notebook command unless the element says otherwise.
function protect(root) {
  speak(root);
  const focusable = "button, input, select, textarea, summary, canvas, [tabindex], [role=slider]";
  for (const node of root.querySelectorAll(focusable)) {
    if (node.dataset.lmSuppressShortcuts !== "true") node.dataset.lmSuppressShortcuts = "true";
    if (node.getAttribute("role") === "slider" && !node.hasAttribute("aria-label")) {
      const text = node.closest(".widget-slider")?.querySelector(".widget-label")?.textContent?.trim();
      node.setAttribute("aria-label", text || node.closest("[title]")?.title || "frame");
    }
  }
}

function render({ model, el }) {
  el.classList.add("mlipkit-header");
  el.innerHTML = `
    <div class="mk-top"><span class="mk-chip" role="status"></span><span class="mk-title"></span>
      <span class="mk-detail"></span><span class="mk-age"></span></div>
    <div class="mk-bar" aria-hidden="true"><div></div></div>
    <div class="mk-sentence" aria-live="polite"></div><div class="mk-alert" role="alert"></div>`;
  const part = (name) => el.querySelector(`.mk-${name}`);
  const put = (name, text) => {
    const node = part(name);
    if (node.textContent !== text) node.textContent = text;
  };
  let beatAt = performance.now();

  const draw = () => {
    el.style.setProperty("--mk-tone", model.get("tone"));
    put("chip", `${model.get("icon")} ${model.get("word")}`);
    part("chip").style.display = model.get("word") ? "" : "none";
    put("title", model.get("title"));
    put("detail", model.get("detail"));
    put("sentence", model.get("sentence"));
    const done = model.get("done");
    part("bar").style.display = done >= 0 ? "" : "none";
    part("bar").firstElementChild.style.width = `${Math.min(100, Math.max(0, 100 * done))}%`;
  };
  const clock = () => {
    const since = (performance.now() - beatAt) / 1000;
    const age = model.get("age");
    put("age", age >= 0 ? words(age + since) : "");
    const dead = el.closest(".jupyter-widgets-disconnected") !== null;
    let text = "";
    if (dead) {
      el.style.setProperty("--mk-tone", "#6b7280");
      put("chip", "? KERNEL GONE");
    }
    if (dead) text = `The kernel was restarted or is gone: ${model.get("gone")}`;
    else if (model.get("live") && since > QUIET_AFTER_S)
      text = `No news from the kernel for ${Math.round(since)} s: it is busy with a cell, or the connection is cut. The run itself goes on.`;
    put("alert", text);
    part("alert").style.display = text ? "block" : "none";
  };
  const beat = () => { beatAt = performance.now(); clock(); };
  const theme = () => {
    if (model.get("dark") !== isDark()) { model.set("dark", isDark()); model.save_changes(); }
  };
  for (const name of ["icon", "word", "tone", "title", "detail", "sentence", "done"]) model.on(`change:${name}`, draw);
  model.on("change:beat", beat);
  draw();
  clock();
  theme();

  const timer = setInterval(clock, 1000);
  const watcher = new MutationObserver(theme);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });
  let guard;
  // The element joins the page only after render returns.
  requestAnimationFrame(() => {
    const root = el.closest(".mlipkit-view");
    if (!root) return;
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; protect(root); });
    };
    protect(root);
    guard = new MutationObserver(later);
    guard.observe(root, { childList: true, subtree: true });
  });
  const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  model.send({ type: "shown", id });
  return () => {
    clearInterval(timer);
    watcher.disconnect();
    guard?.disconnect();
    for (const name of ["icon", "word", "tone", "title", "detail", "sentence", "done"]) model.off(`change:${name}`, draw);
    model.off("change:beat", beat);
    try { model.send({ type: "hidden", id }); } catch { /* the kernel is gone, and nobody needs to know */ }
  };
}

export default { render };
