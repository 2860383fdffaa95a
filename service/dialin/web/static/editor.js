// A text area with line numbers. The text is checked as a person types; each problem appears at the end of its line and
// in a list.

const WAIT_MS = 350;

export class Editor {
  constructor(form) {
    this.form = form;
    this.area = form.querySelector("textarea");
    this.gutter = form.querySelector(".gutter");
    this.marks = form.querySelector(".marks");
    this.problems = form.querySelector("#problems");
    this.plan = form.querySelector("#plan");
    this.asked = 0;
    this.found = new Map();
    this.area.addEventListener("input", () => this.changed());
    this.area.addEventListener("scroll", () => this.align());
    this.problems.addEventListener("click", (event) => this.follow(event));
    this.form.addEventListener("submit", () => this.form.classList.add("sending"));
    window.addEventListener("pageshow", () => this.form.classList.remove("sending"));
    this.changed();
  }

  // Replace the whole text in a way that the browser's undo can revert.
  replace(text) {
    this.area.focus();
    this.area.select();
    if (!document.execCommand("insertText", false, text)) this.area.value = text;
    this.area.setSelectionRange(0, 0);
    this.area.scrollTop = 0;
    this.changed();
  }

  changed() {
    this.found = new Map();
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), WAIT_MS);
  }

  async check() {
    const asked = ++this.asked;
    this.form.dataset.checking = "";
    try {
      const response = await fetch(this.form.dataset.check, {
        method: "POST",
        headers: { "Content-Type": "application/yaml", Accept: "application/json" },
        body: this.area.value,
      });
      const answer = await response.json();
      if (asked !== this.asked) return; // a newer check has been sent
      if (answer.plan) this.showPlan(answer.plan);
      else this.showProblems(answer);
    } catch {
      const message = "The specification could not be checked, because the server does not answer.";
      if (asked === this.asked) this.list([{ message }], "hint");
    }
    if (asked === this.asked) delete this.form.dataset.checking;
  }

  showProblems(answer) {
    const errors = answer.errors?.length ? answer.errors : [{ message: answer.detail || answer.title }];
    this.found = new Map();
    for (const { path, line, message } of errors) if (line && !this.found.has(line)) this.found.set(line, message);
    this.draw();
    this.list(errors, "problems");
    this.plan.replaceChildren();
  }

  list(errors, kind) {
    const items = errors.map(({ path, line, message }) => {
      const item = make("li", {});
      const text = path ? `${path}: ${message}` : message;
      if (line) item.append(make("button", { type: "button", "data-line": line, className: "link" }, `line ${line}`), " ");
      item.append(text);
      return item;
    });
    this.problems.replaceChildren(make("ul", { className: kind }, ...items));
  }

  showPlan(plan) {
    this.found = new Map();
    this.draw();
    this.problems.replaceChildren(make("p", { className: "fits" }, "The specification is valid."));
    const rungs = plan.rungs.length ? `compared after epochs ${plan.rungs.join(", ")}` : "no early stopping";
    const facts = [
      ...goalFacts(plan),
      ["Trials", `${plan.trials}, ${plan.concurrency} at a time`],
      ["Epochs", `up to ${plan.epochs} a trial; ${rungs}`],
      ["In all", `about ${plan.likely_epochs} epochs likely, ${plan.most_epochs} at most`],
      ["Knobs", Object.keys(plan.knobs).join(", ")],
      ["Prior", priorText(plan)],
      ...firstTrials(plan),
    ];
    const rows = facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)));
    const warnings = plan.warnings.map(({ path, message }) => make("li", {}, `${path}: ${message}`));
    this.plan.replaceChildren(make("dl", { className: "facts" }, ...rows));
    if (warnings.length) this.plan.append(make("ul", { className: "warnings" }, ...warnings));
  }

  draw() {
    const lines = this.area.value.split("\n");
    this.gutter.replaceChildren(
      ...lines.map((_, index) => make("span", { className: this.found.has(index + 1) ? "bad" : "" }, String(index + 1))),
    );
    const rows = lines.map((line, index) => {
      const message = this.found.get(index + 1);
      const row = make("span", { className: message ? "bad" : "" }, make("span", { className: "ghost" }, line));
      if (message) row.append(make("em", {}, message));
      row.append("\n");
      return row;
    });
    this.marks.replaceChildren(...rows);
    this.align();
  }

  align() {
    this.gutter.scrollTop = this.area.scrollTop;
    this.marks.scrollTop = this.area.scrollTop;
    this.marks.scrollLeft = this.area.scrollLeft;
  }

  follow(event) {
    const line = Number(event.target.closest("[data-line]")?.dataset.line);
    if (!line) return;
    const before = this.area.value.split("\n").slice(0, line - 1);
    const start = before.reduce((sum, text) => sum + text.length + 1, 0);
    this.area.focus();
    this.area.setSelectionRange(start, start);
    this.area.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(this.area).lineHeight));
  }
}

// Where the search begins, a centre for each knob; "none" where the space has no prior or the sampler uses none.
function priorText(plan) {
  const centres = Object.entries(plan.prior).map(([name, { centre, spread }]) =>
    spread ? `${name} ${centre}, spread ${spread}` : `${name} ${centre}`,
  );
  return centres.length ? `the search begins at ${centres.join("; ")}` : "none";
}

// Which trials take the centres, and beside which values of a choice; nothing where the prior decides none.
function firstTrials(plan) {
  const [first, ...others] = plan.first_trials;
  if (!first) return [];
  const texts = others.map(({ trial, given }) => {
    const [[name, value]] = Object.entries(given);
    return `trial ${trial} takes them with ${name} ${value}`;
  });
  if (others.length) texts.push("those between come from the whole space");
  return [["First trials", [`trial ${first.trial} takes these values`, ...texts].join("; ")]];
}

// Several metrics, and constraints, in words; nothing for one metric without constraints.
function goalFacts(plan) {
  const goals = (plan.objective.metrics ?? []).map(({ name, mode }) => `${mode}imize ${name}`);
  const bounds = Object.entries(plan.constraints ?? {}).map(([name, { min, max }]) => {
    const ends = [min === null ? "" : `at least ${min}`, max === null ? "" : `at most ${max}`];
    return `${name} ${ends.filter(Boolean).join(" and ")}`;
  });
  const facts = [["Goal", goals.join(" and ")], ["Constraints", bounds.join(", ")]];
  return facts.filter(([, text]) => text);
}

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "className") element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}
