// Small pictures of frames in a row. A click, or Enter on a focused one, picks it; one that has something that can be done
// with it carries a second button.

function render({ model, el }) {
  el.classList.add("mlipkit-thumbnails");
  const draw = () => {
    const focused = [...el.querySelectorAll("button")].indexOf(document.activeElement);
    el.replaceChildren();
    model.get("items").forEach((item, index) => {
      const button = document.createElement("button");
      button.className = "mk-thumbnail";
      button.title = item.told;
      button.setAttribute("aria-label", item.told);
      button.dataset.lmSuppressShortcuts = "true";
      button.innerHTML = item.svg;
      button.firstElementChild?.setAttribute("aria-hidden", "true");
      const text = document.createElement("span");
      text.textContent = item.text;
      button.append(text);
      button.onclick = () => model.send({ type: "pick", index });
      if (item.picked) button.setAttribute("aria-current", "true");
      if (!item.action) {
        el.append(button);
        return;
      }
      const holder = document.createElement("div");
      holder.className = "mk-acted";
      if (item.out) holder.classList.add("mk-out");
      const act = document.createElement("button");
      act.className = "mk-act";
      act.textContent = item.action;
      act.setAttribute("aria-pressed", String(Boolean(item.out)));
      act.setAttribute("aria-label", `${item.action}: ${item.told}`);
      act.dataset.lmSuppressShortcuts = "true";
      act.onclick = () => model.send({ type: "act", index });
      holder.append(button, act);
      el.append(holder);
    });
    if (model.get("more")) {
      const more = document.createElement("span");
      more.className = "mk-quiet";
      more.textContent = model.get("more");
      el.append(more);
    }
    if (focused >= 0) el.querySelectorAll("button")[focused]?.focus?.({ preventScroll: true });
  };
  model.on("change:items", draw);
  model.on("change:more", draw);
  draw();
  return () => {
    model.off("change:items", draw);
    model.off("change:more", draw);
  };
}

export default { render };
