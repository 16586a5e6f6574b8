"use strict";
// Counts of each vector along an axis, as sums up to each bin: the count of any range takes two of them.
const sums = (counts) => {
  const found = new Float64Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) found[i + 1] = found[i] + counts[i];
  return found;
};

// See trace/overview/packed.py: four planes of bytes for each vector.
const unpack = async (axis) => {
  const packed = Uint8Array.from(atob(axis.data), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const n = axis.bins;
  return new Map(axis.vectors.map((vector, number) => {
    const at = number * 4 * n;
    const counts = new Float64Array(n);
    for (let plane = 3; plane >= 0; plane--)
      for (let i = 0; i < n; i++) counts[i] = counts[i] * 256 + bytes[at + plane * n + i];
    return [vector, sums(counts)];
  }));
};

class Timeline {
  constructor(data, axis, lanes) {
    this.axis = axis;
    this.span = Math.max(axis.span, 1);
    this.lanes = data.lanes.map((lane) => ({
      ...lane,
      sums: lanes.get(lane.vector),
      events: lane.whole
        ? data.rare.map((row, i) => ({ at: axis.rare[i], text: row.text, vector: row.vector }))
          .filter((row) => row.vector === lane.vector && row.at !== null).sort((a, b) => a.at - b.at)
        : null,
    }));
    this.from = 0;
    this.to = this.span;
    this.least = Math.min(this.span, Math.max(8 * axis.width, 8));
  }

  // Events of a lane from one value to another, the end excluded but for the last one of all.
  count(lane, from, to) {
    if (lane.events) {
      const end = to >= this.span ? Infinity : to;
      return this.first(lane, end) - this.first(lane, from);
    }
    return this.before(lane, to >= this.span ? Infinity : to) - this.before(lane, from);
  }

  first(lane, value) {
    let low = 0;
    let high = lane.events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lane.events[middle].at < value) low = middle + 1; else high = middle;
    }
    return low;
  }

  before(lane, value) {
    if (value <= 0) return 0;  // the first bin begins before the first event
    const bins = lane.sums.length - 1;
    const place = Math.min(Math.max((value - this.axis.start) / this.axis.width, 0), bins);
    const bin = Math.floor(place);
    if (bin === bins) return lane.sums[bins];
    return lane.sums[bin] + (lane.sums[bin + 1] - lane.sums[bin]) * (place - bin);
  }

  show(from, to) {
    const size = Math.min(Math.max(to - from, this.least), this.span);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - size / 2, 0), this.span - size);
    this.to = this.from + size;
  }

  zoom(factor, at = (this.from + this.to) / 2) {
    const size = Math.min(Math.max((this.to - this.from) * factor, this.least), this.span);
    const from = at - (at - this.from) * (size / (this.to - this.from));
    this.show(from, from + size);
  }

  move(part) {
    const by = (this.to - this.from) * part;
    this.show(this.from + by, this.to + by);
  }

  // An event within a distance, the nearest one.
  near(lane, at, distance) {
    if (!lane.events) return null;
    const place = this.first(lane, at);
    const near = [lane.events[place - 1], lane.events[place]].filter(Boolean)
      .sort((a, b) => Math.abs(a.at - at) - Math.abs(b.at - at))[0];
    return near && Math.abs(near.at - at) <= distance ? near : null;
  }
}

const step = (span, most) => {
  const rough = span / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) || power * 10;
};

const COUNTS = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"], [1, ""]];
const TIMES = [[1e9, " s"], [1e6, " ms"], [1e3, " \u00b5s"], [1, " ns"]];

const short = (value, size, units) => {
  const [unit, name] = units.find(([u]) => Math.abs(value) >= u) || [1, ""];
  const digits = Math.min(Math.max(Math.ceil(-Math.log10(size / unit) - 1e-9), 0), 6);
  return (value / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) + name;
};
