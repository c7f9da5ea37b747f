"""What a page gives to those who hear it, see it badly, or have no mouse: names, contrast, focus."""

from __future__ import annotations

from typing import Any

from browser_lab import LabPage

ASKED = {
    "button", "textbox", "searchbox", "combobox", "ComboBoxSelect", "checkbox", "radio", "slider", "spinbutton",
    "switch", "option", "listbox", "link", "tab", "menuitem", "ToggleButton", "image", "img", "Canvas", "figure",
}  # fmt: skip
"""Roles in Chromium's accessibility tree that need a name."""
# Text of the views and how it stands out: [contrast, what is needed, text, colour, background, class].
FAINT = r"""() => {
    // What cannot be used at present, or is not shown, may be faint: legends of hidden curves, too.
    const UNREAD = 'style, script, :disabled, .mk-said, .hoverlayer, .modebar, .traces[style*="opacity: 0.5"]';
    const parse = (text) => {
        const [r, g, b, a] = (text.match(/-?[\d.]+(e-?\d+)?/g) ?? []).map(Number);
        const scale = text.startsWith('color(') ? 255 : 1;
        return text === 'transparent' || r === undefined ? [0, 0, 0, 0] : [r * scale, g * scale, b * scale, a ?? 1];
    };
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (node) => {
        const chain = [];
        for (let one = node; one; one = one.parentElement) chain.unshift(one);
        return chain.map(one => parse(getComputedStyle(one).backgroundColor))
            .reduce((back, one) => over(one, back), [255, 255, 255, 1]);
    };
    const found = [];
    for (const view of document.querySelectorAll('.mlipkit-view')) {
        const walk = document.createTreeWalker(view, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
            const text = walk.currentNode.textContent.trim(), node = walk.currentNode.parentElement;
            if (!text || node.closest(UNREAD)) continue;
            const box = node.getBoundingClientRect();
            if (!box.width || !box.height || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
                continue;
            const style = getComputedStyle(node), drawn = node.closest('svg') !== null;
            // What is drawn upon marks or bars of a picture has another background than the page.
            if (drawn && node.closest('.barlayer, .mk-thumbnail, .mlipkit-scene')) continue;
            let [r, g, b, a] = parse(drawn ? style.fill : style.color);
            for (let one = node; one; one = one.parentElement) a *= Number(getComputedStyle(one).opacity);
            const back = behind(node), ink = over([r, g, b, a], back);
            const [high, low] = [light(ink), light(back)].sort((x, y) => y - x);
            const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
            // A sign that is no word repeats what words say.
            const need = size >= 24 || (size >= 18.66 && bold) || !/[\p{L}\p{N}]/u.test(text) ? 3 : 4.5;
            const contrast = (high + 0.05) / (low + 0.05);
            if (contrast < need - 0.005)
                found.push([Number(contrast.toFixed(2)), need, text.slice(0, 40), ink.map(Math.round).join(' '),
                    back.map(Math.round).join(' '), `${node.tagName} ${node.getAttribute('class')}`.slice(0, 60)]);
        }
    }
    return found;
}"""
# Whether the element that has the focus shows it, and what it is; null outside of the views.
SHOWS_FOCUS = """() => {
    const node = document.activeElement;
    if (!node || !node.closest('.mlipkit-view')) return null;
    const style = getComputedStyle(node), name = (node.ariaLabel || node.innerText || node.title || node.placeholder
        || node.labels?.[0]?.innerText || node.tagName).trim().slice(0, 60);
    return [name, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1.5,
        `${node.tagName}.${node.className}`];
}"""


def nameless(page: LabPage) -> list[str]:
    """Interactive nodes and pictures of the views without a name in letters or digits, as a screen reader has them."""
    session = page.context.new_cdp_session(page.page)
    try:
        document = session.send("DOM.getDocument", {"depth": -1})["root"]
        ours: dict[int, str] = {}
        _collect(document, False, ours)
        tree = session.send("Accessibility.getFullAXTree")["nodes"]
    finally:
        session.detach()
    found = []
    for node in tree:
        place = node.get("backendDOMNodeId")
        role = str(node.get("role", {}).get("value", ""))
        if node.get("ignored") or place not in ours or role not in ASKED:
            continue
        name = str(node.get("name", {}).get("value", ""))
        if not (any(sign.isalnum() for sign in name) or (role == "option" and name)):
            found.append(f"{role} '{name}' {ours[place]}")
    assert tree, "no accessibility tree"
    return found


def _collect(node: dict[str, Any], inside: bool, found: dict[int, str]) -> None:
    attributes = node.get("attributes", [])
    known = dict(zip(attributes[::2], attributes[1::2], strict=True))
    inside = inside or "mlipkit-view" in known.get("class", "").split()
    if inside:
        found[node["backendNodeId"]] = f"<{node['nodeName'].lower()} class='{known.get('class', '')}'>"
    for child in [*node.get("children", []), *node.get("shadowRoots", [])]:
        _collect(child, inside, found)


def faint(page: LabPage) -> list[list[Any]]:
    """Texts of the views below WCAG's contrast (4.5, for large ones 3)."""
    return page.js(FAINT)


def unseen_focus(page: LabPage, most: int = 120) -> tuple[list[str], list[str]]:
    """Go through the views by Tab from where the focus is: (names that were reached, those that do not show it)."""
    reached, hidden = [], []
    for _ in range(most):
        page.page.keyboard.press("Tab")
        told = page.js(SHOWS_FOCUS)
        if told is None:
            break
        reached.append(told[0])
        if not told[1]:
            hidden.append(f"{told[0]} {told[2]}")
    return reached, hidden
