// SPDX-License-Identifier: MPL-2.0
"use strict";

// Lists the streams, and plays one of them: with hls.js where the browser has Media Source Extensions, otherwise with the browser itself.

const POLL_SECONDS = 2;
const AGAIN_SECONDS = 2;

const element = (id) => document.getElementById(id);
const [summary, list, player, title, video, state, address] =
  ["summary", "streams", "player", "title", "video", "state", "address"].map(element);

let chosen = null; // The path of the chosen playlist.
let isReady = false; // The playlist can be played.
let hls = null;
let again = null; // The timer of the next attempt.
let mended = -Infinity; // The time of the last recovery of the decoder.

const nameOf = (stream) =>
  [stream.application, stream.user, stream.stream].filter((part) => part !== null).join("/");

function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const unit = units.find(([size]) => seconds >= size);
  return unit ? `${Math.floor(seconds / unit[0])} ${unit[1]}` : `${Math.floor(seconds)} s`;
}

function describe(stream) {
  if (!stream.ready) return "Starts in a moment";
  const there = `Live for ${duration(stream.seconds)}`;
  return stream.interrupted ? `${there}, interrupted` : there;
}

// The list ---------------------------------------------------------------------------------------

// Present entries stay as they are, so that no viewer loses their place in the list.
const entries = new Map(); // Path of the playlist -> its elements.

function entryOf(stream) {
  const there = entries.get(stream.path);
  if (there) return there;
  const item = document.createElement("li");
  const button = document.createElement("button");
  const [name, what] = ["name", "what"].map((kind) => {
    const span = document.createElement("span");
    span.className = kind;
    button.append(span);
    return span;
  });
  button.type = "button";
  button.dataset.path = stream.path;
  name.textContent = nameOf(stream);
  item.append(button);
  const entry = { item, button, what, stream };
  button.addEventListener("click", () => choose(entry.stream));
  entries.set(stream.path, entry);
  return entry;
}

function show(streams) {
  const paths = new Set(streams.map((stream) => stream.path));
  for (const [path, entry] of entries) {
    if (!paths.has(path)) {
      entry.item.remove();
      entries.delete(path);
    }
  }
  streams.forEach((stream, index) => {
    const entry = entryOf(stream);
    entry.stream = stream;
    entry.button.disabled = !stream.ready;
    entry.button.setAttribute("aria-pressed", String(stream.path === chosen));
    say(entry.what, describe(stream));
    if (list.children[index] !== entry.item) list.insertBefore(entry.item, list.children[index] ?? null);
  });
  const count = streams.length;
  say(summary, count === 0 ? "No streams. Publish one, and it appears here." : `${count} ${count === 1 ? "stream" : "streams"}`);
}

// A screen reader reads a repeated text only once.
function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

async function poll() {
  try {
    const response = await fetch("streams", { cache: "no-store" });
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    const { streams } = await response.json();
    show(streams);
    follow(streams.find((stream) => stream.path === chosen));
  } catch (error) {
    say(summary, `The list of streams can't be had: ${error.message}. Trying again.`);
  }
  setTimeout(poll, POLL_SECONDS * 1000);
}

// The player -------------------------------------------------------------------------------------

function choose(stream) {
  chosen = stream.path;
  isReady = true;
  for (const entry of entries.values()) {
    entry.button.setAttribute("aria-pressed", String(entry.stream.path === chosen));
  }
  say(title, nameOf(stream));
  address.href = stream.playlist;
  address.textContent = stream.playlist;
  player.hidden = false;
  play();
}

// Updates the chosen stream; `undefined` when it has ended.
function follow(stream) {
  if (chosen === null) return;
  const wasReady = isReady;
  isReady = Boolean(stream?.ready);
  if (isReady && !wasReady) {
    // It is back: an ended playback does not continue by itself.
    play();
  } else if (!isReady && wasReady) {
    // The rest is played up to the end of the playlist.
    clearTimeout(again);
    say(state, "The stream has ended. It continues here when it returns.");
  }
}

function stop() {
  clearTimeout(again);
  hls?.destroy();
  hls = null;
}

function playLater() {
  clearTimeout(again);
  again = setTimeout(() => {
    if (isReady) play();
  }, AGAIN_SECONDS * 1000);
}

function play() {
  stop();
  say(state, "Loading…");
  if (window.Hls?.isSupported()) {
    playByScript();
  } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
    video.src = chosen;
    start();
  } else {
    say(state, "This browser cannot play HLS, and the server has no hls.js. Its log says how to install it.");
  }
}

function playByScript() {
  hls = new window.Hls({ lowLatencyMode: false, backBufferLength: 30 });
  const playing = hls;
  hls.on(window.Hls.Events.MANIFEST_PARSED, start);
  hls.on(window.Hls.Events.ERROR, (_, error) => {
    if (!error.fatal || hls !== playing) return;
    const wasMended = performance.now() - mended < AGAIN_SECONDS * 1000;
    if (error.type === window.Hls.ErrorTypes.MEDIA_ERROR && !wasMended) {
      mended = performance.now();
      hls.recoverMediaError();
      return;
    }
    say(state, "The stream does not load. Trying again.");
    playLater();
  });
  hls.loadSource(chosen);
  hls.attachMedia(video);
}

function start() {
  // Browsers may require a click, for which there are controls.
  video.play().catch(() => say(state, "Press play to start."));
}

function sayPlaying() {
  if (isReady && !video.paused) say(state, video.muted ? "Playing, without sound until you switch it on." : "Playing.");
}
video.addEventListener("playing", sayPlaying);
video.addEventListener("volumechange", sayPlaying);
video.addEventListener("waiting", () => {
  if (isReady) say(state, "Waiting for more…");
});
// It may be back already, with the same playlist.
video.addEventListener("ended", playLater);
// hls.js reports its errors by its own events.
video.addEventListener("error", () => {
  if (hls === null) playLater();
});

poll();
