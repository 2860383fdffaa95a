// Keeps a page up to date: fetches its parts after an event, at most once a second, or else every few seconds, and replaces
// those that have changed.

import { morph } from "./morph.js";

const LEAST_MS = 1000;
const EVENTS = ["trial_started", "epoch", "decision", "trial_ended", "note", "study"];

export class Live {
  constructor(main, say) {
    this.main = main;
    this.say = say;
    this.every = 1000 * (main.dataset.every || 10);
    this.due = null;
    this.running = false;
    this.again = false;
    this.began = 0;
    this.pause = LEAST_MS;
    this.source = null;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => this.look());
    for (const log of main.querySelectorAll("[data-follow]")) log.scrollTop = log.scrollHeight;
    this.listen();
    this.poll();
  }

  look() {
    if (document.hidden) this.close();
    else this.soon();
  }

  poll() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (!document.hidden) this.soon();
      this.poll();
    }, this.every);
  }

  listen() {
    const url = this.main.dataset.events;
    const ended = document.getElementById("part-head")?.dataset.ended !== undefined;
    if (!url || ended || document.hidden) return this.close();
    if (this.source && this.source.readyState !== EventSource.CLOSED) return;
    this.source = new EventSource(url);
    for (const kind of EVENTS) this.source.addEventListener(kind, () => this.soon());
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  // Refresh as soon as the pause since the last refresh is over.
  soon() {
    if (this.running) this.again = true;
    else if (this.due === null) {
      // Browsers keep 32 bits of a delay, so a very negative one would become days.
      const wait = Math.max(0, this.began + this.pause - Date.now());
      this.due = setTimeout(() => this.refresh(), wait);
    }
  }

  async refresh() {
    clearTimeout(this.due);
    this.due = null;
    this.running = true;
    this.began = Date.now();
    const url = this.main.dataset.live;
    try {
      const response = await fetch(url, { headers: { Accept: "text/html" }, redirect: "manual" });
      if (response.type === "opaqueredirect" || response.status === 401) return location.reload();
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      const text = await response.text();
      if (url === this.main.dataset.live) this.show(text);
      if (this.failures) this.say("");
      this.failures = 0;
    } catch (error) {
      this.failures += 1;
      if (this.failures > 1) this.say(`This page is not up to date: ${error.message}. Trying again.`);
    } finally {
      // A slow server is asked less often.
      this.pause = Math.max(LEAST_MS, 4 * (Date.now() - this.began));
      this.running = false;
    }
    this.listen();
    if (this.again) {
      this.again = false;
      this.soon();
    }
  }

  show(text) {
    const before = facts();
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of fresh.querySelectorAll("[data-part]")) {
      const there = document.getElementById(part.id);
      if (!there || selectedIn(there)) continue;
      const log = there.querySelector("[data-follow]");
      const follows = !log || log.scrollHeight - log.scrollTop - log.clientHeight < 24;
      morph(there, part);
      const after = there.querySelector("[data-follow]");
      if (after && follows) after.scrollTop = after.scrollHeight;
    }
    announce(before, facts());
  }
}

// A part with selected text is not replaced, because the person is probably about to copy it.
function selectedIn(part) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && selection.containsNode(part, true);
}

function facts() {
  return { ...document.getElementById("part-head")?.dataset };
}

function announce(before, after) {
  const place = document.getElementById("announce");
  if (!place) return;
  if (before.state !== after.state) place.textContent = `The study is ${after.state}.`;
  else if (before.best !== after.best) place.textContent = `The new best value is ${after.best}.`;
}
