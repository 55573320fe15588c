// SPDX-License-Identifier: MPL-2.0

// Plots of one stream, drawn by uPlot: bitrate and frame rate, and below them the state as a band of its colour.

import { STATES, bits, clock, frames } from "./format.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
const FONT = "11px system-ui, sans-serif";
// Both plots have the same left and right edge.
const AXIS = 62;

// Loads uPlot. Returns false where it cannot be had.
export function load() {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = "uplot.css";
  const script = document.createElement("script");
  script.src = "uplot.js";
  document.head.append(style, script);
  return new Promise((resolve) => {
    script.addEventListener("load", () => resolve(true));
    script.addEventListener("error", () => resolve(false));
  });
}

function axis(scale, side, name, values) {
  return {
    scale,
    side,
    size: AXIS,
    font: FONT,
    stroke: () => colour(name),
    grid: { show: side === 3, stroke: () => colour("line"), width: 1 },
    ticks: { show: false },
    values: (_, ticks) => ticks.map(values),
  };
}

const short = (rate) => (rate >= 1e6 ? `${rate / 1e6} M` : `${rate / 1e3} k`);
// A plot of nothing has a scale, too.
const fromZero = (least) => (_, min, max) => [0, Math.max((max ?? 0) * 1.1, least)];

export class Plots {
  // `readout` is the element that says the values under the pointer, or the last ones.
  constructor(rateElement, stateElement, readout, samples) {
    this.samples = samples;
    this.readout = readout;
    this.index = null;
    const time = () => ({ time: true, range: () => [samples.last - samples.capacity, samples.last] });
    const cursor = { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: rateElement.id } };
    const xAxis = { size: 22, font: FONT, stroke: () => colour("dim"), grid: { show: false }, ticks: { show: false } };
    this.rate = new uPlot({
      ...this.sizeOf(rateElement),
      legend: { show: false },
      cursor,
      scales: { x: time(), bitrate: { range: fromZero(1e5) }, rate: { range: fromZero(10) } },
      axes: [xAxis, axis("bitrate", 3, "bitrate", short), axis("rate", 1, "rate", (rate) => `${rate}`)],
      series: [
        {},
        { scale: "bitrate", stroke: () => colour("bitrate"), width: 1.5, points: { show: false } },
        { scale: "rate", stroke: () => colour("rate"), width: 1, dash: [5, 3], spanGaps: false, points: { show: false } },
      ],
      hooks: { setCursor: [(plot) => this.point(plot.cursor.idx)] },
    }, this.rateData(), rateElement);
    this.state = new uPlot({
      ...this.sizeOf(stateElement),
      legend: { show: false },
      cursor,
      padding: [0, AXIS, 0, AXIS],
      scales: { x: time(), y: { range: [0, 1] } },
      axes: [{ show: false }, { show: false }],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { draw: [(plot) => drawStates(plot, samples)], setCursor: [(plot) => this.point(plot.cursor.idx)] },
    }, this.stateData(), stateElement);
    this.elements = [rateElement, stateElement];
    new ResizeObserver(() => this.resize()).observe(rateElement);
    this.say();
  }

  sizeOf(element) {
    return { width: Math.max(element.clientWidth, 50), height: element.clientHeight };
  }

  rateData() {
    return [this.samples.time, this.samples.bitrate, this.samples.frameRate];
  }

  stateData() {
    return [this.samples.time, this.samples.state];
  }

  resize() {
    this.rate.setSize(this.sizeOf(this.elements[0]));
    this.state.setSize(this.sizeOf(this.elements[1]));
  }

  update() {
    this.rate.setData(this.rateData());
    this.state.setData(this.stateData());
    this.say();
  }

  // Draws again, with the colours that hold now.
  recolour() {
    this.rate.redraw(false, true);
    this.state.redraw(false, true);
  }

  point(index) {
    this.index = index ?? null;
    this.say();
  }

  say() {
    const { time, bitrate, frameRate, state } = this.samples;
    const index = this.index ?? time.length - 1;
    if (index < 0 || index >= time.length) return;
    const [when, rate, speed] = ["", "bitrate", "rate"].map((name) => {
      const span = document.createElement("span");
      span.className = name;
      return span;
    });
    when.textContent = `${clock(time[index])} · ${STATES[state[index]].text} · `;
    rate.textContent = `— ${bits(bitrate[index])}`;
    speed.textContent = `  ┄ ${frames(frameRate[index])}`;
    this.readout.replaceChildren(when, rate, speed);
  }
}

// Draws a band for each stretch of one state.
function drawStates(plot, samples) {
  const { ctx, bbox } = plot;
  const { time, state } = samples;
  ctx.save();
  for (let start = 0; start < time.length;) {
    let end = start + 1;
    while (end < time.length && state[end] === state[start]) end += 1;
    const until = end < time.length ? time[end] : time[end - 1];
    const left = plot.valToPos(time[start], "x", true);
    const right = plot.valToPos(until, "x", true);
    ctx.fillStyle = colour(STATES[state[start]].nick);
    ctx.fillRect(left, bbox.top, Math.max(right - left, 1), bbox.height);
    start = end;
  }
  ctx.restore();
}
