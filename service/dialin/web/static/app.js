// The entry of the page's scripts. Without them only checks while typing, copying and live updates are missing.

import { Editor } from "./editor.js";
import { Live } from "./live.js";

const main = document.getElementById("main");
const message = document.getElementById("message");

function say(text) {
  message.textContent = text;
  message.hidden = !text;
}

const live = main.dataset.live ? new Live(main, say) : null;
const editing = main.querySelector("[data-editor]");
const editor = editing ? new Editor(editing) : null;

main.querySelector("[data-spaces] select")?.addEventListener("change", (event) => {
  const yaml = event.target.selectedOptions[0].dataset.yaml;
  if (yaml !== undefined) editor.replace(yaml);
});

main.querySelector("[data-knob] select")?.addEventListener("change", (event) => {
  const url = new URL(location.href);
  url.searchParams.set("knob", event.target.value);
  history.replaceState(null, "", url);
  main.dataset.live = `${url.pathname}/live${url.search}`;
  live.refresh();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) await copy(button);
  for (const open of document.querySelectorAll("details.extend[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector("details.extend[open]");
  if (!open) return;
  open.open = false;
  open.querySelector("summary").focus();
});

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const done = await write(source);
  button.setAttribute("data-copied", done ? "yes" : "no");
  const announce = document.getElementById("announce");
  if (announce) announce.textContent = done ? "Copied." : "The browser did not allow copying. Select the text and copy it by hand.";
  setTimeout(() => button.removeAttribute("data-copied"), 2000);
}

async function write(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    // Without https there is no clipboard API; the deprecated command copies the selection.
    const selection = document.getSelection();
    selection.selectAllChildren(source);
    const done = document.execCommand("copy");
    if (done) selection.removeAllRanges();
    return done;
  }
}

// Actions on a study are sent without leaving its page.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-quiet]")) return;
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(form.action, { method: "POST", body, redirect: "manual" });
    if (response.type === "opaqueredirect" || response.ok) {
      say("");
      form.reset();
      form.closest("details")?.removeAttribute("open");
      await live.refresh();
    } else {
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      say(page.querySelector(".problem")?.textContent || `The server answered ${response.status}.`);
    }
  } catch {
    say("The server does not answer. The action may not have been taken; try again.");
  }
  button.disabled = false;
});

// A request that follows a link from another site carries no cookie (SameSite=Strict), so a person who is signed in may
// arrive here. A request from this page carries the cookie and shows whether they are.
const signIn = main.querySelector("[data-sign-in]");
if (signIn) {
  // MLflow's pages differ in the part of the address after #, which browsers do not send to the server.
  const wanted = signIn.dataset.signIn + location.hash;
  signIn.elements.next.value = wanted;
  const answer = await fetch("/api/v1/session").catch(() => null);
  if (answer?.ok && !document.activeElement?.value) location.replace(wanted);
}
