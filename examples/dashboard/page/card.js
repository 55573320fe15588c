// SPDX-License-Identifier: MPL-2.0

// The card of one stream.

import { disconnect, reconnect } from "./actions.js";
import { bits, duration, frames, pathOf, say, stateOf } from "./format.js";
import { Plots } from "./plots.js";
import { Samples } from "./samples.js";

const THUMBNAIL_SECONDS = 4;
let count = 0;

function make(kind, className, parent) {
  const element = document.createElement(kind);
  element.className = className;
  parent.append(element);
  return element;
}

export class Card {
  constructor(stream, capacity) {
    count += 1;
    this.name = stream.name;
    this.samples = new Samples(capacity);
    this.plots = null;
    this.thumbnailAt = -Infinity;
    this.element = document.createElement("article");
    this.element.className = "board-card";
    this.element.tabIndex = 0;
    this.element.dataset.name = stream.name;
    const header = make("header", "", this.element);
    const title = make("h3", "", header);
    title.id = `board-card-${count}`;
    title.textContent = stream.name;
    this.element.setAttribute("aria-labelledby", title.id);
    this.state = make("span", "board-state", header);
    this.image = make("img", "", this.element);
    this.image.alt = `Last picture of ${stream.name}`;
    this.image.hidden = true;
    const numbers = make("div", "board-numbers", this.element);
    this.bitrate = make("span", "board-bitrate", numbers);
    this.frameRate = make("span", "board-frame-rate", numbers);
    this.rateElement = make("div", "board-plot", this.element);
    this.rateElement.id = `board-plot-${count}`;
    this.stateElement = make("div", "board-state-plot", this.element);
    this.readout = make("p", "board-readout", this.element);
    this.facts = make("dl", "board-facts", this.element);
    this.buttons = make("div", "board-buttons", this.element);
    this.reconnect = this.button("Ask to reconnect", "", () => reconnect(this.name));
    this.disconnect = this.button("Disconnect…", "dangerous", () => disconnect(this.name));
    // For those who look at the plotted values by script.
    this.element.card = this;
  }

  button(text, className, act) {
    const button = make("button", className, this.buttons);
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", `${text.replace("…", "")}: ${this.name}`);
    button.addEventListener("click", act);
    return button;
  }

  update(stream, listing, canPlot) {
    const state = stateOf(stream.state);
    this.element.dataset.state = state.nick;
    say(this.state, `${state.sign} ${state.text} ${duration(listing.time - stream.since)}`);
    say(this.bitrate, bits(stream.bitrate));
    say(this.frameRate, frames(stream.frame_rate));
    this.samples.append(stream.history);
    this.updateFacts(stream);
    this.updateThumbnail(stream);
    this.buttons.hidden = !listing.actions;
    this.reconnect.disabled = this.disconnect.disabled = !stream.publisher;
    this.rateElement.hidden = this.stateElement.hidden = this.readout.hidden = !canPlot;
    if (!canPlot || this.samples.time.length === 0) return;
    if (this.plots === null) {
      this.plots = new Plots(this.rateElement, this.stateElement, this.readout, this.samples);
    } else {
      this.plots.update();
    }
  }

  updateFacts(stream) {
    const audio = [
      stream.audio_codec,
      stream.audio_rate && `${stream.audio_rate / 1000} kHz`,
      stream.audio_channels && (["", "mono", "stereo"][stream.audio_channels] ?? `${stream.audio_channels} channels`),
    ];
    const video = [
      stream.video_codec,
      stream.profile,
      stream.resolution,
      stream.configured_frame_rate && frames(stream.configured_frame_rate),
    ];
    const text = (parts) => parts.filter(Boolean).join(" ");
    const interval = stream.keyframe_interval_seconds;
    const lines = [
      ["Video", text(video)],
      ["Audio", text(audio)],
      ["Keyframes", interval && `each ${Math.round(interval * 100) / 100} s${stream.b_frames ? ", with B-frames" : ""}`],
      ["Quality", stream.low_quality.length > 0 && `⚠ ${stream.low_quality.join(", ")}`],
      ["From", stream.address && `${stream.address}${stream.tls ? " (TLS)" : ""}`],
      ["Encoder", stream.encoder],
      ["Online", stream.uptime_seconds && duration(stream.uptime_seconds)],
      ["Dropped", stream.dropped_tags > 0 && `${stream.dropped_tags} tags`],
      ...stream.details.map(({ label, value }) => [label, value]),
    ].filter(([, value]) => value);
    const shown = JSON.stringify(lines);
    if (this.facts.dataset.shown === shown) return;
    this.facts.dataset.shown = shown;
    this.facts.replaceChildren(...lines.flatMap((line) => line.map((text, index) => {
      const element = document.createElement(index === 0 ? "dt" : "dd");
      element.textContent = text;
      return element;
    })));
  }

  updateThumbnail(stream) {
    this.image.hidden = !stream.thumbnail;
    const now = performance.now();
    if (!stream.thumbnail || document.hidden || now - this.thumbnailAt < THUMBNAIL_SECONDS * 1000) return;
    this.thumbnailAt = now;
    this.image.src = `${pathOf(this.name)}/thumbnail?at=${Math.round(now)}`;
  }
}
