// SPDX-License-Identifier: MPL-2.0

// The operator's page: asks for everything once a second, and shows it.

import * as actions from "./actions.js";
import { Card } from "./card.js";
import { bits, clock, duration, say } from "./format.js";
import { load } from "./plots.js";

const POLL_SECONDS = 1;
const NOTICE_SECONDS = 8;
// Answers of a proxy that serves the page to everybody, and its data to operators alone.
const NOT_FOR_VIEWERS = [401, 403, 404];

const element = (id) => document.getElementById(id);
const [totals, notice, grid, filter, wall, drain, table, none] = [
  "board-totals", "board-notice", "board-cards", "board-filter", "board-wall", "board-drain", "board-refusals", "board-no-refusals",
].map(element);

const cards = new Map(); // Name of the stream -> its card.
let canPlot = null; // Not known before the first answer.
let noticeUntil = 0;

// The outcome of an action stays for a while.
actions.onOutcome((text, isProblem) => {
  say(notice, text);
  notice.classList.toggle("problem", isProblem);
  noticeUntil = performance.now() + NOTICE_SECONDS * 1000;
});

function showNotice(text, isProblem) {
  if (performance.now() < noticeUntil) return;
  say(notice, text);
  notice.classList.toggle("problem", isProblem);
}

// What is shown ----------------------------------------------------------------------------------

function showTotals(listing) {
  const values = [
    ["live", `${listing.totals.active} of ${listing.totals.streams}`],
    ["received", bits(listing.totals.bitrate)],
    ["refused", `${listing.totals.refused}`],
    ["running", duration(listing.uptime_seconds)],
  ];
  if (totals.children.length === 0) {
    totals.append(...values.map(([label]) => {
      const group = document.createElement("div");
      const [term, value] = ["dt", "dd"].map((kind) => document.createElement(kind));
      term.textContent = label;
      value.dataset.total = label;
      group.append(term, value);
      return group;
    }));
  }
  values.forEach(([, text], index) => say(totals.children[index].lastChild, text));
}

function showCards(listing) {
  const names = new Set(listing.streams.map((stream) => stream.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.element.remove();
    cards.delete(name);
  }
  // Present cards stay where they are, so that no operator loses the focus.
  listing.streams.forEach((stream, index) => {
    let card = cards.get(stream.name);
    if (!card) {
      card = new Card(stream, listing.capacity);
      cards.set(stream.name, card);
    }
    if (grid.children[index] !== card.element) grid.insertBefore(card.element, grid.children[index] ?? null);
    card.element.hidden = !isWanted(card);
    card.update(stream, listing, canPlot);
  });
}

function isWanted(card) {
  return card.name.toLowerCase().includes(filter.value.trim().toLowerCase());
}

function showRefusals(refusals) {
  none.hidden = refusals.length > 0;
  table.hidden = refusals.length === 0;
  const shown = JSON.stringify(refusals);
  if (table.dataset.shown === shown) return;
  table.dataset.shown = shown;
  table.tBodies[0].replaceChildren(...refusals.map((refusal) => {
    const row = document.createElement("tr");
    const cells = [clock(refusal.time), refusal.address, `${refusal.application}/${refusal.stream}`, refusal.reason];
    row.append(...cells.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

// Leaves what the program itself has added, such as a player.
function showToViewers() {
  document.querySelectorAll("#board-totals, .board-tools, #board-notice, .board-cards, .board-refusals")
    .forEach((part) => { part.hidden = true; });
}

async function poll() {
  try {
    // A new stream starts with all that the server has.
    const known = [...cards.values()].map((card) => card.samples.last);
    const after = known.length > 0 ? Math.min(...known) : 0;
    const response = await fetch(`api/streams?after=${after}`, { cache: "no-store" });
    if (NOT_FOR_VIEWERS.includes(response.status)) return showToViewers();
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    const listing = await response.json();
    canPlot ??= listing.plots && (await load());
    showTotals(listing);
    showCards(listing);
    showRefusals(listing.refusals);
    drain.hidden = !listing.actions;
    drain.disabled = listing.draining;
    const state = listing.draining ? "The program drains: it accepts no publisher any more." : "";
    showNotice(listing.streams.length === 0 ? state || "Nothing is published yet." : state, false);
  } catch (error) {
    showNotice(`The program does not answer: ${error.message}. Trying again.`, true);
  }
  setTimeout(poll, POLL_SECONDS * 1000);
}

// What is pressed --------------------------------------------------------------------------------

filter.addEventListener("input", () => cards.forEach((card) => { card.element.hidden = !isWanted(card); }));
drain.addEventListener("click", actions.drain);
wall.addEventListener("click", () => setWall(!document.body.classList.contains("wall")));

function setWall(isOn) {
  document.body.classList.toggle("wall", isOn);
  wall.setAttribute("aria-pressed", String(isOn));
}

// Moves the focus from card to card: sideways to the next one, up and down by rows.
function moveFocus(key) {
  const shown = [...cards.values()].map((card) => card.element).filter((card) => !card.hidden);
  shown.sort((a, b) => (a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
  const present = shown.indexOf(document.activeElement);
  if (present < 0) return false;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  shown[present + step]?.focus();
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target === filter && event.key === "Escape") {
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
    filter.blur();
    return;
  }
  if (event.target.closest("input, dialog, video, select, textarea")) return;
  if (event.key === "/") {
    filter.focus();
  } else if (event.key === "w") {
    setWall(!document.body.classList.contains("wall"));
  } else if (!event.key.startsWith("Arrow") || !moveFocus(event.key)) {
    return;
  }
  event.preventDefault();
});

// Colours follow the system while the page is open.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  cards.forEach((card) => card.plots?.recolour());
});

if (new URLSearchParams(location.search).has("wall")) setWall(true);
poll();
