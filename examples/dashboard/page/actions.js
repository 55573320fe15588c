// SPDX-License-Identifier: MPL-2.0

// What operators do: each action is confirmed, and carries the token that the operator has typed. The token stays in this tab.

import { pathOf } from "./format.js";

const KEY = "rtmp2-token";
const element = (id) => document.getElementById(id);
let notify = () => {};

// Sets the function that shows the outcome of an action, and whether it is a problem.
export function onOutcome(show) {
  notify = show;
}

// Asks the operator. Returns whether the answer is yes; the token is known then.
function ask(question, yes) {
  const [dialog, token] = [element("board-dialog"), element("board-token")];
  const isKnown = sessionStorage.getItem(KEY) !== null;
  element("board-dialog-text").textContent = question;
  element("board-dialog-yes").textContent = yes;
  element("board-token-label").hidden = isKnown;
  token.required = !isKnown;
  token.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const isYes = dialog.returnValue === "yes";
      if (isYes && !isKnown) sessionStorage.setItem(KEY, token.value.trim());
      token.value = "";
      resolve(isYes);
    }, { once: true });
  });
}

async function act(question, yes, path, done) {
  if (!(await ask(question, yes))) return;
  try {
    const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
    const response = await fetch(path, { method: "POST", headers });
    if (response.status === 401) sessionStorage.removeItem(KEY);
    if (!response.ok) throw new Error((await response.json()).error);
    notify(done, false);
  } catch (error) {
    notify(`That was not possible: ${error.message}.`, true);
  }
}

export function disconnect(name) {
  const question = `Disconnect the publisher of ${name}? It may connect again.`;
  return act(question, "Disconnect", `${pathOf(name)}/disconnect`, `${name} was disconnected.`);
}

export function reconnect(name) {
  const question = `Ask the publisher of ${name} to connect again?`;
  return act(question, "Ask", `${pathOf(name)}/reconnect`, `${name} was asked to connect again.`);
}

export function drain() {
  const question = "Drain this program? It accepts no publisher from then on, asks the present ones to reconnect, and disconnects"
    + " them when their time is over. Only a restart ends that.";
  return act(question, "Drain", "api/drain", "The program drains.");
}
