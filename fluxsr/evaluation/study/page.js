"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const element = id => document.getElementById(id);
const panes = [...document.querySelectorAll(".pane")], frame = document.querySelector(".panes");
const choices = [...document.querySelectorAll(".choice")], zooms = [...document.querySelectorAll("[data-zoom]")];
const SANITY = "sanity", place = "fluxsr-study-" + study.study;

// What this person has done so far. A browser may forbid keeping it; then the page still works until it is closed.
let state = null;
try { state = JSON.parse(localStorage.getItem(place)); } catch { }
if (!state || !Array.isArray(state.votes)) {
  const random = crypto.getRandomValues(new Uint32Array(2));
  state = { participant: [...random].map(n => n.toString(16).padStart(8, "0")).join(""), started: new Date().toISOString(), votes: [] };
}
const keep = () => { try { localStorage.setItem(place, JSON.stringify(state)); } catch { } };

// Random numbers that depend on the person alone: the order is the same after the page was closed.
function randomOf(text) {
  let seed = 2166136261;
  for (const letter of text) seed = Math.imul(seed ^ letter.charCodeAt(0), 16777619);
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
function shuffled(items, random) {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [copy[i], copy[j]] = [copy[j], copy[i]];
  }
  return copy;
}
function orderFor(participant) {
  const random = randomOf(study.study + participant), groups = new Map(), checks = [];
  for (const trial of study.trials) {
    if (trial[2] === SANITY) { checks.push(trial); continue; }
    const pair = trial[1] + trial[2];
    groups.set(pair, [...(groups.get(pair) ?? []), trial]);
  }
  // One of each pair of systems in turn, so that all come up alike where a person sees a part only.
  let order = [];
  const queues = shuffled([...groups.values()], random).map(group => shuffled(group, random));
  for (let round = 0; queues.some(queue => round < queue.length); round++)
    for (const queue of queues) if (round < queue.length) order.push(queue[round]);
  order = shuffled(order.slice(0, study.votes ?? order.length), random);
  for (const check of checks) order.splice(1 + Math.floor(random() * order.length), 0, check);
  return order.map(([image, a, b]) => random() < 0.5 ? { image, left: a, right: b } : { image, left: b, right: a });
}
const order = orderFor(state.participant);
const current = () => order[state.votes.length];

// Both panes look at one place: scale in CSS pixels per image pixel (null: fit) and the image point in the middle.
const view = { scale: null, x: 0, y: 0 };
const size = () => study.images[current()?.image ?? 0];
const fitting = () => Math.min(panes[0].clientWidth / size().width, panes[0].clientHeight / size().height);
function draw() {
  const { width, height } = size(), scale = view.scale ?? fitting();
  const middle = (point, side, room) => side * scale <= room ? side / 2 : Math.min(Math.max(point, room / 2 / scale), side - room / 2 / scale);
  view.x = middle(view.x, width, panes[0].clientWidth);
  view.y = middle(view.y, height, panes[0].clientHeight);
  for (const pane of panes) for (const image of pane.querySelectorAll("img")) {
    image.style.transform = `translate(${pane.clientWidth / 2 - view.x * scale}px, ${pane.clientHeight / 2 - view.y * scale}px) scale(${scale})`;
    image.classList.toggle("pixels", scale * devicePixelRatio >= 2);
  }
  for (const button of zooms) button.setAttribute("aria-pressed", view.scale === wanted(button));
}
const wanted = button => Number(button.dataset.zoom) ? Number(button.dataset.zoom) / devicePixelRatio : null;
function zoomTo(scale, pane, clientX, clientY) {
  const box = pane.getBoundingClientRect(), before = view.scale ?? fitting();
  const [dx, dy] = [clientX - box.left - box.width / 2, clientY - box.top - box.height / 2];
  const after = Math.min(Math.max(scale, fitting()), 16);
  view.x += dx / before - dx / after;
  view.y += dy / before - dy / after;
  view.scale = after <= fitting() ? null : after;
  draw();
}
const fingers = new Map();
for (const pane of panes) {
  pane.addEventListener("wheel", event => {
    event.preventDefault();
    zoomTo((view.scale ?? fitting()) * Math.exp(-event.deltaY * 0.002), pane, event.clientX, event.clientY);
  }, { passive: false });
  pane.addEventListener("pointerdown", event => {
    try { pane.setPointerCapture(event.pointerId); } catch { }
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    pane.classList.add("dragging");
  });
  pane.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const scale = view.scale ?? fitting(), after = [event.clientX, event.clientY];
    fingers.set(event.pointerId, after);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const distance = point => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoomTo(scale * distance(after) / distance(before), pane, (after[0] + other[0]) / 2, (after[1] + other[1]) / 2);
    } else {
      view.x -= (after[0] - before[0]) / scale;
      view.y -= (after[1] - before[1]) / scale;
      draw();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, event => {
    fingers.delete(event.pointerId);
    pane.classList.remove("dragging");
  });
  pane.addEventListener("dblclick", event => zoomTo(view.scale === null ? 2 / devicePixelRatio : 0, pane, event.clientX, event.clientY));
}
zooms.forEach(button => button.addEventListener("click", () => { view.scale = wanted(button); draw(); }));
addEventListener("resize", () => { if (!element("vote").hidden) draw(); });

let shownAt = 0, ticket = 0;
async function show() {
  const done = state.votes.length, trial = current();
  element("bar").style.width = `${100 * done / order.length}%`;
  element("count").textContent = `${done} of ${order.length}`;
  for (const section of ["start", "vote", "end"]) element(section).hidden = section !== (trial ? "vote" : "end");
  element("undo").disabled = !done;
  if (!trial) return;
  const image = study.images[trial.image], mine = ++ticket;
  Object.assign(view, { scale: null, x: image.width / 2, y: image.height / 2 });
  frame.classList.add("loading");
  panes.forEach(pane => pane.classList.remove("chosen"));
  choices.forEach(button => { button.disabled = true; });
  const waiting = panes.map(pane => {
    const [picture, input] = pane.querySelectorAll("img");
    picture.src = image.pictures[trial[pane.dataset.side]];
    if (image.input) input.src = image.input;
    return picture.decode();
  });
  draw();
  await Promise.allSettled(waiting);  // the two appear at once, or the slower one would give itself away
  if (mine !== ticket) return;
  draw();
  frame.classList.remove("loading");
  choices.forEach(button => { button.disabled = false; });
  shownAt = performance.now();
  const next = order[done + 1];
  if (next) for (const side of ["left", "right"]) new Image().src = study.images[next.image].pictures[next[side]];
}
function vote(choice) {
  if (element("vote").hidden || choices[0].disabled || !current()) return;
  state.votes.push({ ...current(), choice, seconds: Math.round(performance.now() - shownAt) / 1000 });
  keep();
  show();
}
function undo() {
  if (!state.votes.length) return;
  state.votes.pop();
  keep();
  show();
}
choices.forEach(button => {
  button.addEventListener("click", () => vote(button.dataset.choice));
  const pane = panes.find(one => one.dataset.side === button.dataset.choice);
  // Only what a hand does: a pointer that lies where the next pair appears must not speak for one of its pictures.
  button.addEventListener("pointermove", event => { if (event.movementX || event.movementY) pane?.classList.add("chosen"); });
  button.addEventListener("pointerleave", () => pane?.classList.remove("chosen"));
});
element("undo").addEventListener("click", undo);
element("back").addEventListener("click", undo);

const inputs = on => frame.classList.toggle("inputs", on && Boolean(size().input));
const button = element("show-input");
button.hidden = !study.images[0].input;
element("start-input").hidden = button.hidden;
for (const [event, on] of [["pointerdown", true], ["pointerup", false], ["pointerleave", false]]) button.addEventListener(event, () => inputs(on));
const keys = { ArrowLeft: () => vote("left"), ArrowRight: () => vote("right"), ArrowDown: () => vote("tie"), Backspace: undo, " ": () => inputs(true) };
addEventListener("keydown", event => {
  if (element("vote").hidden || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  if (event.key === " " && document.activeElement instanceof HTMLButtonElement && button.hidden) return;
  event.preventDefault();
  if (!event.repeat) keys[event.key]();
});
addEventListener("keyup", event => { if (event.key === " ") inputs(false); });

function save() {
  const content = { format: study.format, study: study.study, ...state, saved: new Date().toISOString() };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = `votes-${study.study}-${state.participant}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  element("saved").textContent = `Saved as ${link.download}`;
}
for (const one of document.querySelectorAll(".save")) one.addEventListener("click", save);

element("title").textContent = study.title;
for (const id of ["question", "start-question"]) element(id).textContent = study.question;
element("start-count").textContent = order.length;
element("count").textContent = `${state.votes.length} of ${order.length}`;
element("begin").textContent = state.votes.length ? "Go on" : "Begin";
element("begin").addEventListener("click", () => { keep(); show(); });
