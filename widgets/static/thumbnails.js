// Small pictures of frames in a row. A click, or Enter on a focused one, picks it.

function render({ model, el }) {
  el.classList.add("mlipkit-thumbnails");
  const draw = () => {
    const focused = [...el.children].indexOf(document.activeElement);
    el.replaceChildren();
    model.get("items").forEach((item, index) => {
      const button = document.createElement("button");
      button.className = "mk-thumbnail";
      button.title = item.told;
      button.setAttribute("aria-label", item.told);
      button.dataset.lmSuppressShortcuts = "true";
      button.innerHTML = item.svg;
      const text = document.createElement("span");
      text.textContent = item.text;
      button.append(text);
      button.onclick = () => model.send({ type: "pick", index });
      el.append(button);
    });
    if (model.get("more")) {
      const more = document.createElement("span");
      more.className = "mk-quiet";
      more.textContent = model.get("more");
      el.append(more);
    }
    if (focused >= 0) el.children[focused]?.focus?.({ preventScroll: true });
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
