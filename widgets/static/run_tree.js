// Runs as lines, parents above their children. A click or Enter opens one; arrow keys, Home and End go through them.
// Lines are kept and changed one by one: a list that is built anew every second loses focus and scroll.

function make(name) {
  const line = document.createElement("div");
  line.className = "mk-run";
  line.dataset.name = name;
  line.setAttribute("role", "option");
  line.tabIndex = -1;
  for (const part of ["icon", "name", "text", "origin"]) {
    const node = document.createElement("span");
    node.className = `mk-run-${part}`;
    line.append(node);
  }
  return line;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function fill(line, one) {
  const [icon, name, text, origin] = line.children;
  put(icon, one.icon);
  put(name, one.name);
  put(text, one.text);
  put(origin, one.origin);
  line.style.setProperty("--mk-tone", one.tone);
  line.style.setProperty("--mk-depth", one.depth);
  if (line.getAttribute("aria-label") !== one.told) line.setAttribute("aria-label", one.told);
  line.title = one.told;
}

function render({ model, el }) {
  el.classList.add("mlipkit-run-tree");
  const list = document.createElement("div");
  list.className = "mk-run-list";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "runs of this folder");
  el.append(list);
  let at = "";
  const lines = () => [...list.children];
  const mark = () => {
    const opened = model.get("opened");
    const known = lines();
    if (!known.some((line) => line.dataset.name === at)) at = opened || known[0]?.dataset.name || "";
    for (const line of known) {
      line.setAttribute("aria-selected", String(line.dataset.name === opened));
      line.tabIndex = line.dataset.name === at ? 0 : -1;
    }
  };
  const draw = () => {
    const known = new Map(lines().map((line) => [line.dataset.name, line]));
    const wanted = model.get("lines");
    wanted.forEach((one, index) => {
      const line = known.get(one.name) ?? make(one.name);
      known.delete(one.name);
      fill(line, one);
      if (list.children[index] !== line) list.insertBefore(line, list.children[index] ?? null);
    });
    for (const line of known.values()) line.remove();
    mark();
  };
  const opened = () => {
    at = model.get("opened") || at;
    mark();
    const line = lines().find((one) => one.dataset.name === at);
    if (!line) return;
    // Only the list may scroll, not the page.
    if (line.offsetTop < list.scrollTop) list.scrollTop = line.offsetTop;
    else if (line.offsetTop + line.offsetHeight > list.scrollTop + list.clientHeight)
      list.scrollTop = line.offsetTop + line.offsetHeight - list.clientHeight;
  };
  const open = (line) => line && model.send({ type: "open", name: line.dataset.name });
  const click = (event) => open(event.target.closest?.(".mk-run"));
  const key = (event) => {
    const known = lines();
    const here = known.indexOf(event.target);
    if (here < 0) return;
    if (event.key === "Enter" || event.key === " ") open(event.target);
    else {
      const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: known.length - 1 }[event.key];
      if (to === undefined) return;
      const line = known[Math.min(Math.max(to, 0), known.length - 1)];
      at = line.dataset.name;
      mark();
      line.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  };
  list.addEventListener("click", click);
  list.addEventListener("keydown", key);
  model.on("change:lines", draw);
  model.on("change:opened", opened);
  draw();
  return () => {
    model.off("change:lines", draw);
    model.off("change:opened", opened);
  };
}

export default { render };
