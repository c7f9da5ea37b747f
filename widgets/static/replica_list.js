// Simulations of a run as small labels in groups. One of them is picked by click or by the arrow keys.

function render({ model, el }) {
  el.classList.add("mlipkit-replicas");
  const redraw = () => {
    const focused = el.contains(document.activeElement) && document.activeElement.dataset.index !== undefined;
    const scroll = el.querySelector(".mk-field")?.scrollTop ?? 0;
    const many = model.get("groups").length > 1;
    el.replaceChildren();
    const head = document.createElement("div");
    head.className = "mk-replica-head";
    for (const [order, text, tip] of [
      ["number", "by number", "Sort by number"], ["time", "by failure", "First failure first"],
    ]) {
      const choice = document.createElement("button");
      choice.textContent = text;
      choice.title = tip;
      choice.className = "mk-choice";
      choice.setAttribute("aria-pressed", String(model.get("order") === order));
      choice.onclick = () => { model.set("order", order); model.save_changes(); };
      head.append(choice);
    }
    const field = document.createElement("div");
    field.className = "mk-field";
    field.setAttribute("role", "listbox");
    field.setAttribute("aria-label", "simulations of this run");
    for (const group of model.get("groups")) {
      if (many) {
        const name = document.createElement("div");
        name.className = "mk-group";
        name.textContent = `${group.name}: ${group.count}`;
        field.append(name);
      }
      const box = document.createElement("div");
      box.className = "mk-pills";
      const members = [...group.members];
      if (model.get("order") === "time") {
        members.sort((a, b) => (a.time ?? Infinity) - (b.time ?? Infinity) || a.index - b.index);
      }
      for (const one of members) {
        const pill = document.createElement("div");
        const picked = one.index === model.get("picked");
        pill.className = "mk-pill";
        pill.dataset.index = one.index;
        pill.style.setProperty("--mk-tone", one.tone);
        pill.setAttribute("role", "option");
        pill.setAttribute("aria-selected", String(picked));
        pill.setAttribute("aria-label", one.told);
        pill.tabIndex = picked ? 0 : -1;
        pill.title = one.told;
        const mark = document.createElement("b");
        mark.textContent = `${one.icon} ${one.index}`;
        pill.append(mark);
        if (one.text) pill.append(` ${one.text}`);
        box.append(pill);
      }
      field.append(box);
    }
    el.append(head, field);
    field.scrollTop = scroll;
    if (focused) field.querySelector("[aria-selected=true]")?.focus({ preventScroll: true });
  };
  const mark = () => {
    const pills = [...el.querySelectorAll(".mk-pill")];
    for (const pill of pills) {
      const picked = Number(pill.dataset.index) === model.get("picked");
      pill.setAttribute("aria-selected", String(picked));
      pill.tabIndex = picked ? 0 : -1;
      if (picked) {
        // Only the field may scroll, not the page.
        const field = pill.closest(".mk-field");
        const top = pill.offsetTop;
        if (top < field.scrollTop) field.scrollTop = top;
        else if (top + pill.offsetHeight > field.scrollTop + field.clientHeight)
          field.scrollTop = top + pill.offsetHeight - field.clientHeight;
      }
    }
  };
  const pick = (pill) => {
    if (!pill) return;
    model.set("picked", Number(pill.dataset.index));
    model.save_changes();
    mark();
    pill.focus({ preventScroll: true });
  };
  const click = (event) => pick(event.target.closest?.(".mk-pill"));
  const key = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.classList.contains("mk-pill")) return;
    event.preventDefault();
    event.stopPropagation();
    const pills = [...el.querySelectorAll(".mk-pill")];
    pick(pills[pills.indexOf(event.target) + step]);
  };
  el.addEventListener("click", click);
  el.addEventListener("keydown", key);
  model.on("change:groups", redraw);
  model.on("change:order", redraw);
  model.on("change:picked", mark);
  redraw();
  return () => {
    model.off("change:groups", redraw);
    model.off("change:order", redraw);
    model.off("change:picked", mark);
  };
}

export default { render };
