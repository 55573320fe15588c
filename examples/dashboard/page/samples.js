// SPDX-License-Identifier: MPL-2.0

// The last ten minutes of one stream, as the server has them.

export class Samples {
  constructor(capacity) {
    this.capacity = capacity;
    this.time = [];
    this.bitrate = [];
    this.frameRate = [];
    this.state = [];
  }

  get last() {
    return this.time.at(-1) ?? 0;
  }

  // Adds the columns of an answer. Samples that are here already are left out.
  append(columns) {
    const start = columns.time.findIndex((time) => time > this.last);
    if (start < 0) return;
    this.time.push(...columns.time.slice(start));
    this.bitrate.push(...columns.bitrate.slice(start));
    this.frameRate.push(...columns.frame_rate.slice(start));
    this.state.push(...columns.state.slice(start));
    const surplus = this.time.length - this.capacity;
    if (surplus > 0) {
      [this.time, this.bitrate, this.frameRate, this.state].forEach((column) => column.splice(0, surplus));
    }
  }
}
