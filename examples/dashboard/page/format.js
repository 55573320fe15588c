// SPDX-License-Identifier: MPL-2.0

// Numbers and states as people read them, and names as paths have them.

export const STATES = [
  null,
  { nick: "active", sign: "●", text: "Live" },
  { nick: "reconfiguring", sign: "◐", text: "Starting" },
  { nick: "paused", sign: "‖", text: "Interrupted" },
  { nick: "stopped", sign: "○", text: "Offline" },
  { nick: "failed", sign: "✕", text: "Failed" },
];

export const stateOf = (nick) => STATES.find((state) => state?.nick === nick) ?? STATES[4];

export function bits(rate) {
  if (rate === null || rate === undefined) return "–";
  if (rate >= 1e6) return `${(rate / 1e6).toFixed(rate >= 1e7 ? 1 : 2)} Mbit/s`;
  return `${Math.round(rate / 1e3)} kbit/s`;
}

export function frames(rate) {
  return rate === null || rate === undefined ? "–" : `${Math.round(rate * 100) / 100} fps`;
}

export function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const unit = units.find(([size]) => seconds >= size);
  return unit ? `${Math.floor(seconds / unit[0])} ${unit[1]}` : `${Math.max(0, Math.floor(seconds))} s`;
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString();
}

// A screen reader reads a repeated text only once.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Returns the path of a stream's data.
export function pathOf(name) {
  return `api/streams/${name.split("/").map(encodeURIComponent).join("/")}`;
}
