// Run inside nglview's view object (`this`): loads one structure, then moves, colours and marks its atoms.
// @STRUCTURE@ is replaced by the PDB text as a JSON string, @OPTIONS@ by {unitcell, dark, large, twin}.
const view = this;
const options = @OPTIONS@;
if (!view.mlipkit) {
  // A view whose kernel is gone has nobody to tell of its camera.
  const send = view.send.bind(view);
  view.send = (...message) => { try { return send(...message); } catch { return undefined; } };
}
view.setSize("100%", "100%");
if (!view.mlipkit) view.$container.resizable("destroy");
view.$pickingInfo.css("display", "none");
view.stage.viewer.container.setAttribute("role", "img");
view.stage.viewer.container.setAttribute("aria-label", "atoms in three dimensions");
view.mlipkit?.sizer.disconnect();
view.stage.removeAllComponents();
const kit = (view.mlipkit = { pending: null, component: null, marks: null, sizer: null });
kit.sizer = new ResizeObserver(() => view.stage.handleResize());
kit.sizer.observe(view.el);
kit.background = (dark) => view.stage.setParameters({ backgroundColor: dark ? "#111111" : "#ffffff" });
kit.show = (frame) => {
  kit.pending = frame;
  const component = kit.component;
  if (!component) return;
  const structure = component.structure;
  structure.updatePosition(new Float32Array(frame.positions));
  component.updateRepresentations({ position: true });
  if (frame.values) {
    const store = structure.atomStore;
    if (!store.bfactor || store.bfactor.length < frame.values.length) store.addField("bfactor", 1, "float32");
    for (let i = 0; i < frame.values.length; i++) store.bfactor[i] = frame.values[i];
  }
  const scheme = frame.values ? "bfactor" : "element";
  const key = JSON.stringify([scheme, frame.domain]);
  if (key !== kit.scheme) {
    kit.scheme = key;
    kit.body.setParameters({
      colorScheme: scheme, colorScale: frame.scale, colorDomain: frame.domain, colorReverse: false,
    });
  } else if (frame.values) kit.body.update({ color: true });
  const marks = JSON.stringify(frame.marked);
  if (marks !== kit.marks) {
    kit.marks = marks;
    kit.halo.setSelection(frame.marked.length ? "@" + frame.marked.join(",") : "none");
    kit.names.setSelection(frame.marked.length ? "@" + frame.marked.join(",") : "none");
  }
};
if (options.twin && !view.mlipkitTwins) {
  // Views of one pair turn together.
  const twins = (view.mlipkitTwins = (window.mlipkitTwins ??= {})[options.twin] ??= new Set());
  twins.add(view);
  view.stage.viewerControls.signals.changed.add(() => {
    if (view.mlipkitTurned) return;
    for (const other of twins) {
      if (!other.el.isConnected) twins.delete(other);
      else if (other !== view && other.mlipkit?.component) {
        other.mlipkitTurned = true;
        other.stage.viewerControls.orient(view.stage.viewerControls.getOrientation());
        other.mlipkitTurned = false;
      }
    }
  });
}
kit.background(options.dark);
view.stage.loadFile(new Blob([@STRUCTURE@], { type: "text/plain" }), { ext: "pdb", defaultRepresentation: false })
  .then((component) => {
    if (view.mlipkit !== kit) { view.stage.removeComponent(component); return; }
    kit.body = component.addRepresentation(options.large ? "point" : "ball+stick", {
      multipleBond: "off", radiusType: "vdw", radiusScale: 0.18, bondScale: 0.5, colorScheme: "element",
    });
    kit.halo = component.addRepresentation("spacefill", {
      sele: "none", radiusScale: 0.42, opacity: 0.45, color: "#d55e00", depthWrite: false,
    });
    kit.names = component.addRepresentation("label", {
      sele: "none", labelType: "format", labelFormat: "%(element)s %(index)s", color: "#d55e00", zOffset: 3,
      fixedSize: true, radiusType: "size", radiusSize: 1.6, attachment: "bottom-left",
    });
    if (options.unitcell) component.addRepresentation("unitcell", { colorValue: 0x888888 });
    kit.component = component;
    component.autoView();
    if (kit.pending) kit.show(kit.pending);
  });
