// SPDX-License-Identifier: MPL-2.0
"use strict";

// Lists the streams, and plays one of them: with hls.js where the browser has Media Source Extensions, else by the browser itself.

const POLL_SECONDS = 2;
const AGAIN_SECONDS = 2;

const element = (id) => document.getElementById(id);
const [summary, list, player, title, video, state, address] =
  ["summary", "streams", "player", "title", "video", "state", "address"].map(element);

let chosen = null; // The path of the playlist that is to be played.
let isReady = false; // The server says that it can be played.
let hls = null;
let again = null; // A timer.
let mended = -Infinity; // When the decoder was last set up anew.

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

// One that is there stays as it is, so that nobody loses their place in the list.
const entries = new Map(); // From the path of the playlist to what is shown.

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
  say(summary, count === 0 ? "There are no streams. Publish one, and it appears here." : `${count} ${count === 1 ? "stream" : "streams"}`);
}

// What is said again is not read out again.
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

// What the server says of the one that is chosen. Nothing, if it is gone.
function follow(stream) {
  if (chosen === null) return;
  const wasReady = isReady;
  isReady = Boolean(stream?.ready);
  if (isReady && !wasReady) {
    // It is back: what has ended does not go on by itself.
    play();
  } else if (!isReady && wasReady) {
    // What there is of it is played to its end, which the playlist has.
    clearTimeout(again);
    say(state, "The stream has ended. It goes on here when it is back.");
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
    say(state, "This browser can't play HLS, and the server has no hls.js to help it. Its log says what to do.");
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
    say(state, "The stream does not come. Trying again.");
    playLater();
  });
  hls.loadSource(chosen);
  hls.attachMedia(video);
}

function start() {
  // Browsers may want a click for it; there are controls for that.
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
// It may be back already, and its playlist go on.
video.addEventListener("ended", playLater);
// That of hls.js is told by its own events.
video.addEventListener("error", () => {
  if (hls === null) playLater();
});

poll();
