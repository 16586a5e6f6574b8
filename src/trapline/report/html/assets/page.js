(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;

  // The theme: the system's, until the button is pressed.
  const button = byId("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const redraws = [];
  const themed = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
    redraws.forEach((draw) => draw());
  };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; themed(); });
  dark.addEventListener("change", themed);
  themed();

  const data = JSON.parse(byId("data").textContent);
  if (!data.total) return;

  const LEFT = 124, RIGHT = 8, LANE = 42, WHOLE = 24, AXIS = 22;
  const chart = byId("chart"), canvas = byId("canvas"), view = byId("chart-view"), point = byId("chart-point");
  const KINDS = { 1: "debug", 3: "debug", 4: "code", 5: "code", 6: "code", 7: "fpu", 8: "double", 14: "page", 16: "fpu", 19: "fpu" };
  let timeline = null, drag = null, pending = false, spoken = 0;

  const colour = (name) => {
    chart.style.color = `var(--${name})`;
    const found = getComputedStyle(chart).color;
    chart.style.color = "";
    return found;
  };
  let palette = {};
  const colours = () => {
    palette = Object.fromEntries(["text", "muted", "line", "panel", "bg", "link", "page", "fault", "code", "fpu", "debug", "double"].map((name) => [name, colour(name)]));
  };

  const label = (at, size) => {
    const { name, tick } = timeline.axis;
    if (name === "seq") return Math.round(at).toLocaleString("en");
    return tick ? short(at * tick, size * tick, TIMES) : short(at, size, COUNTS);
  };
  const round = (most) => {  // a step of the axis, in its own unit
    const tick = timeline.axis.tick || 1;
    return step((timeline.to - timeline.from) * tick, most) / tick;
  };
  const width = () => chart.clientWidth - LEFT - RIGHT;
  const value = (x) => timeline.from + (x - LEFT) / width() * (timeline.to - timeline.from);
  const pixel = (at) => LEFT + (at - timeline.from) / (timeline.to - timeline.from) * width();
  const laneHeight = (lane) => (lane.events ? WHOLE : LANE);

  const draw = () => {
    pending = false;
    const lanes = timeline.lanes, wide = Math.max(width(), 1);
    const height = lanes.reduce((sum, lane) => sum + laneHeight(lane), 0) + AXIS;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(chart.clientWidth * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const c = canvas.getContext("2d");
    c.scale(ratio, ratio);
    c.font = getComputedStyle(document.body).font;
    c.textBaseline = "middle";
    let top = 0;
    for (const lane of lanes) {
      const tall = laneHeight(lane), base = top + tall - 0.5;
      const kind = palette[KINDS[lane.vector] || "fault"];
      c.fillStyle = palette.line;
      c.fillRect(0, base, chart.clientWidth, 1);
      c.fillStyle = kind;
      c.font = `600 12.5px ${getComputedStyle(root).getPropertyValue("--mono")}`;
      c.fillText(lane.name, 0, top + tall / 2);
      c.fillStyle = palette.muted;
      c.font = "12px system-ui, sans-serif";
      c.textAlign = "right";
      c.fillText(Math.round(timeline.count(lane, timeline.from, timeline.to)).toLocaleString("en"), LEFT - 10, top + tall / 2);
      c.textAlign = "left";
      c.fillStyle = kind;
      if (lane.events) {
        for (let i = timeline.first(lane, timeline.from); i < lane.events.length && lane.events[i].at <= timeline.to; i++)
          c.fillRect(pixel(lane.events[i].at) - 1, top + 4, 2, tall - 8);
      } else {
        const per = (timeline.to - timeline.from) / wide;
        const counts = new Float64Array(wide);
        let most = 0, before = timeline.before(lane, timeline.from);
        for (let x = 0; x < wide; x++) {
          const after = timeline.before(lane, x === wide - 1 && timeline.to >= timeline.span ? Infinity : timeline.from + (x + 1) * per);
          counts[x] = after - before;
          before = after;
          if (counts[x] > most) most = counts[x];
        }
        const scale = (tall - 6) / Math.log1p(most);
        for (let x = 0; x < wide; x++)
          if (counts[x] > 0) {
            const bar = Math.max(Math.log1p(counts[x]) * scale, 1);
            c.fillRect(LEFT + x, base - bar, 1, bar);
          }
      }
      top += tall;
    }
    c.fillStyle = palette.muted;
    c.font = "12px system-ui, sans-serif";
    c.textBaseline = "top";
    const size = round(wide / 90);
    for (let at = Math.ceil(timeline.from / size) * size; at <= timeline.to; at += size) {
      const x = Math.round(pixel(at));
      c.fillRect(x, top, 1, 4);
      const text = label(at, size);
      c.textAlign = x + c.measureText(text).width / 2 > chart.clientWidth ? "right" : "center";
      c.fillText(text, x, top + 6);
    }
    if (drag && drag.selecting) {
      c.globalAlpha = 0.15;
      c.fillStyle = palette.link;
      c.fillRect(Math.min(drag.start, drag.now), 0, Math.abs(drag.now - drag.start), top);
      c.globalAlpha = 1;
    }
    root.dataset.ready = "";
  };
  const redraw = () => { if (!pending) { pending = true; requestAnimationFrame(draw); } };

  const unit = () => (timeline.axis.name === "tsc" && !timeline.axis.tick ? " cycles" : "");
  const told = (from, to) => timeline.lanes
    .map((lane) => [lane.name, Math.round(timeline.count(lane, from, to))])
    .filter(([, n]) => n > 0).map(([name, n]) => `${name} ${n.toLocaleString("en")}`).join(", ") || "nothing";
  const tell = () => {
    const size = round(1000);
    const whole = timeline.from === 0 && timeline.to === timeline.span;
    view.textContent = `${whole ? "All" : "In view"}: ${label(timeline.from, size)} to ${label(timeline.to, size)}${unit()}: ${told(timeline.from, timeline.to)}.`;
  };
  const say = () => {
    redraw();
    clearTimeout(spoken);
    spoken = setTimeout(tell, 120);  // a screen reader need not read every step
  };

  const act = {
    left: () => timeline.move(-0.25), right: () => timeline.move(0.25),
    earlier: () => timeline.move(-0.9), later: () => timeline.move(0.9),
    in: () => timeline.zoom(0.5), out: () => timeline.zoom(2),
    start: () => timeline.show(0, timeline.to - timeline.from),
    end: () => timeline.show(timeline.span - (timeline.to - timeline.from), timeline.span),
    all: () => timeline.show(0, timeline.span),
  };
  const KEYS = {
    ArrowLeft: "left", ArrowRight: "right", PageUp: "earlier", PageDown: "later", "+": "in", "=": "in", ArrowUp: "in",
    "-": "out", "_": "out", ArrowDown: "out", Home: "start", End: "end", 0: "all",
  };
  chart.addEventListener("keydown", (event) => {
    const name = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
    if (!name) return;
    event.preventDefault();
    act[name]();
    say();
  });
  byId("controls").addEventListener("click", (event) => {
    const name = event.target.dataset.do;
    if (name) { act[name](); say(); }
  });

  chart.addEventListener("wheel", (event) => {
    const x = event.clientX - chart.getBoundingClientRect().left;
    if (event.ctrlKey || event.metaKey) timeline.zoom(Math.exp(event.deltaY / 300), value(Math.max(x, LEFT)));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) timeline.move((event.deltaX || event.deltaY) / width());
    else return;
    event.preventDefault();
    say();
  }, { passive: false });
  const place = (event) => Math.min(Math.max(event.clientX - chart.getBoundingClientRect().left, LEFT), LEFT + width());
  chart.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.clientX - chart.getBoundingClientRect().left < LEFT) return;
    drag = { start: place(event), now: place(event), selecting: event.pointerType === "mouse", from: timeline.from, to: timeline.to };
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (drag) {
      drag.now = place(event);
      if (!drag.selecting) {
        const by = (drag.start - drag.now) / width() * (drag.to - drag.from);
        timeline.show(drag.from + by, drag.to + by);
        say();
      }
      redraw();
    }
    const x = place(event), per = (timeline.to - timeline.from) / width();
    const y = event.clientY - chart.getBoundingClientRect().top;
    let top = 0, text = "";
    for (const lane of timeline.lanes) {
      const near = y >= top && y < top + laneHeight(lane) ? timeline.near(lane, value(x), 5 * per) : null;
      if (near) text = near.text;
      top += laneHeight(lane);
    }
    const at = value(Math.floor(x));
    point.textContent = `${label(at, per)}${unit()}: ${text || told(at, at + per)}`;
  });
  chart.addEventListener("pointerleave", () => { point.textContent = "\u00a0"; });
  chart.addEventListener("pointerup", () => {
    if (drag && drag.selecting && Math.abs(drag.now - drag.start) > 4) {
      const ends = [value(drag.start), value(drag.now)].sort((a, b) => a - b);
      timeline.show(...ends);
    }
    drag = null;
    say();
  });
  chart.addEventListener("pointercancel", () => { drag = null; redraw(); });
  chart.addEventListener("dblclick", () => { act.all(); say(); });

  const made = new Map();
  const choose = async (axis) => {
    if (!made.has(axis.name)) made.set(axis.name, new Timeline(data, axis, await unpack(axis)));
    timeline = made.get(axis.name);
    redraw();
    tell();
  };
  data.axes.forEach((axis, number) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "axis", value: axis.name, checked: number === 0 });
    input.addEventListener("change", () => choose(axis));
    label.append(input, ` ${axis.title}`);
    byId("axes").append(label);
  });
  colours();
  redraws.push(() => { colours(); if (timeline) redraw(); });
  choose(data.axes[0]).then(() => {
    byId("controls").hidden = false;
    new ResizeObserver(redraw).observe(chart);
  });
})();
