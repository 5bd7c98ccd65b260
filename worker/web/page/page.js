// Shows the worker's state: it receives one document a second.

import { bars, clock, duration, lines, number } from "/charts.js";

const REASONS = {
  invalid: "what was stored is no valid change",
  rejected: "the service refused it",
  not_found: "there is no such completion",
  too_many_keys: "the result would have more than 16 keys",
  not_persisted: "the service answered, but did not keep it",
  unreadable: "the service does not show what a merge builds on",
  attempts_exhausted: "its attempts were used up",
};
const SILENCE_MS = 4500;
const LETTERS_SHOWN = 50;
const BATCH_LETTERS_SHOWN = 10;

const get = (id) => document.getElementById(id);
let last = null;
let heardAt = null;
let openReason = null;
let spoken = null;
let shownReasons = {};

// All content from the worker is inserted as text, never as HTML.
function make(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") made.className = value;
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key === "on") made.addEventListener(...value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function say(id, text) {
  const place = get(id);
  if (place.textContent !== text) place.textContent = text;
}

function count(value, one, many) {
  return `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
}

function moment(at) {
  const time = new Date(at * 1000);
  const today = new Date().toDateString() === time.toDateString();
  const hours = `${clock(at)}:${String(time.getSeconds()).padStart(2, "0")}`;
  return today ? hours : `${time.getFullYear()}-${String(time.getMonth() + 1).padStart(2, "0")}-${String(time.getDate()).padStart(2, "0")} ${hours}`;
}

// Announces a new state to screen readers, but not new figures.
function speak(text) {
  const gist = text.replace(/[\d.,]+/g, "");
  if (gist === spoken) return;
  spoken = gist;
  say("spoken", text);
}

function showState(doc) {
  const { state } = doc;
  get("state").dataset.kind = state.kind;
  say("title", state.since ? `${state.title} since ${clock(state.since)}` : state.title);
  say("detail", state.detail);
  document.title = `${state.title} – metasync`;
  speak(state.kind === "busy" ? "Changes are being applied." : `${state.title}.`);
}

function showFigures(doc) {
  const queue = doc.queue;
  const workers = Object.values(doc.workers);
  const flying = workers.reduce((sum, worker) => sum + worker.in_flight, 0);
  const slots = workers.reduce((sum, worker) => sum + worker.slots, 0);
  say("in-flight", number(flying));
  say("in-flight-note", slots ? `of ${count(slots, "slot", "slots")}` : "");
  if (!queue) {
    for (const id of ["pending", "oldest", "dead"]) say(id, "–");
    for (const id of ["pending-note", "oldest-note", "dead-note"]) say(id, "not known now");
    get("needed").hidden = true;
    return;
  }
  say("pending", queue.pending.toLocaleString("en"));
  say("pending-note", queue.waiting ? `${number(queue.waiting)} to be retried` : queue.pending ? left(doc) : "nothing waits");
  say("oldest", duration(queue.oldest_pending_seconds));
  say("oldest-note", queue.oldest_pending_seconds === null ? "nothing waits" : "since enqueued");
  say("dead", queue.dead.toLocaleString("en"));
  say("dead-note", queue.dead ? "to look at" : "none");
  get("dead").classList.toggle("trouble", queue.dead > 0);
  get("needed").hidden = queue.dead === 0;
  say("needed-link", doc.state.kind === "needed" ? "Look at them" : `Look at ${count(queue.dead, "dead letter", "dead letters")}`);
}

function left(doc) {
  if (!(doc.per_second > 0.05) || doc.state.kind !== "busy") return "";
  return `${duration(Math.max(1, doc.queue.pending / doc.per_second))} at this pace`;
}

function showCharts(doc) {
  const rows = doc.history;
  if (!rows) return;
  const now = rows.at(-1);
  const plot = (id) => get(id).querySelector(".plot");
  say("now-done", number(doc.per_second));
  const known = rows.filter((row) => row[4] !== null).at(-1);
  say("now-rate", known && known[6] ? (known[7] ? `${number(known[6])} of ${number(known[7])}` : number(known[6])) : "–");
  say("now-pending", doc.queue ? doc.queue.pending.toLocaleString("en") : "–");
  say("now-oldest", doc.queue ? duration(doc.queue.oldest_pending_seconds) : "–");
  if (doc.queue) [now[4], now[5]] = [doc.queue.pending, doc.queue.oldest_pending_seconds];
  for (const row of rows) if (row[4] !== null && row[5] === null) row[5] = 0;
  bars(plot("chart-done"), rows, doc.at);
  lines(plot("chart-rate"), rows, [
    { column: 7, kind: "limit", says: "limit found" }, { column: 6, kind: "rate", says: "rate" },
  ], { name: "Requests a second" });
  lines(plot("chart-pending"), rows, [{ column: 4, kind: "pending", filled: true, says: "changes" }], { name: "Pending changes" });
  lines(plot("chart-oldest"), rows, [{ column: 5, kind: "oldest", filled: true, says: "age" }], { name: "Age of the oldest", isTime: true });
}

function empty(title, text) {
  return make("div", { class: "empty" }, make("strong", {}, title), text);
}

const WORDS = {
  retry: "to be retried", snoozed: "postponed", released: "given back",
  not_found: "not found", too_many_keys: "too many keys", not_persisted: "not persisted", attempts_exhausted: "attempts used up",
};

function outcome([at, completion, applied, unchanged, dead, kept, what, status, ms]) {
  const tags = [
    applied && make("span", { class: "tag applied" }, applied === 1 ? "applied" : `${applied} applied`),
    unchanged && make("span", { class: "tag" }, unchanged === 1 ? "unchanged" : `${unchanged} unchanged`),
    dead && make("span", { class: "tag dead" }, dead === 1 ? WORDS[what] ?? what : `${dead} ${WORDS[what] ?? what}`),
    kept && make("span", { class: "tag retry" }, dead ? `${kept} left` : WORDS[what] ?? what),
  ].filter(Boolean);
  const side = [status, ms === null ? null : `${number(ms)} ms`].filter((part) => part !== null).join(" · ");
  return make("li", { class: "row" },
    make("time", {}, moment(at)), make("span", { class: "grow mono", title: completion }, completion), ...tags,
    make("span", { class: "side" }, side));
}

function showLatest(doc) {
  const newest = doc.latest.at(-1)?.[0];
  const list = get("latest");
  const mark = String(newest ?? "none");
  if (list.dataset.mark === mark) return;
  list.dataset.mark = mark;
  const scrollable = doc.latest.length > 8;
  if (scrollable) list.setAttribute("tabindex", "0");
  else list.removeAttribute("tabindex");
  list.replaceChildren(...(doc.latest.length
    ? doc.latest.toReversed().map(outcome)
    : [make("li", {}, empty("Nothing yet", "Outcomes of this worker appear here as they happen."))]));
}

function worker([name, flow], paused) {
  const halted = flow.gate !== "open";
  const tag = halted ? "tag dead" : paused ? "tag" : "tag applied";
  const rate = `${number(flow.rate_per_second)} requests a second`;
  return make("li", { class: "row" },
    make("span", { class: "grow mono" }, name),
    make("span", { class: tag }, halted ? `halted: ${flow.cause?.reason ?? "reason unknown"}` : paused ? "paused" : "at work"),
    make("span", { class: "side" }, `${rate} · ${flow.in_flight} in flight`));
}

function showWorkers(doc) {
  const workers = Object.entries(doc.workers);
  get("workers").replaceChildren(...(workers.length ? workers.map((each) => worker(each, doc.state.kind === "paused")) : [make("li", {}, empty("No worker has reported lately", "A worker reports its state every two seconds, an idle one every twelve."))]));
  say("foot", `metasync ${doc.version}${doc.trouble ? ` · ${doc.trouble}` : ""}`);
}

// Batches: the running ones with their progress, and the last finished ones. A click shows the details.

let openBatch = null;

function ends(batch) {
  const parts = ["applied", "unchanged", "superseded", "dead", "withdrawn"].filter((end) => batch[end]);
  return parts.map((end) => `${number(batch[end])} ${end}`).join(" · ") || "nothing yet";
}

function remaining(batch) {
  if (!batch.pending) return "finished";
  const time = batch.seconds_left === null ? "" : ` · ${duration(Math.max(1, batch.seconds_left))} left`;
  return `${number(batch.pending)} pending${time}`;
}

function makeBatch(name) {
  return make("li", { data: { batch: name } },
    make("button", { class: "batch", on: ["click", () => tellBatch(name)] },
      make("span", { class: "grow mono", title: name }, name),
      make("progress", { max: "1", "aria-label": `How much of ${name} is done` }),
      make("span", { class: "side" })));
}

function showBatches(doc) {
  const batches = doc.batches ?? [];
  get("batches-section").hidden = batches.length === 0;
  const holder = get("batches");
  const there = new Map([...holder.children].map((each) => [each.dataset.batch, each]));
  const kept = batches.map((batch) => {
    const row = there.get(batch.name) ?? makeBatch(batch.name);
    const bar = row.querySelector("progress");
    bar.value = batch.changes ? (batch.changes - batch.pending) / batch.changes : 1;
    row.querySelector(".side").textContent = remaining(batch);
    row.querySelector(".side").classList.toggle("trouble", batch.dead > 0);
    if (batch.dead) row.querySelector(".side").textContent += ` · ${number(batch.dead)} dead`;
    return row;
  });
  const same = kept.length === holder.children.length && kept.every((row, place) => holder.children[place] === row);
  if (!same) holder.replaceChildren(...kept);
  if (openBatch && get("story").open) tellCounts(batches.find((each) => each.name === openBatch));
}

function tellCounts(batch) {
  const facts = document.getElementById("batch-facts");
  if (!batch || !facts) return;
  facts.replaceChildren(
    ...fact("Came", moment(batch.created_at)),
    ...fact("Changes", batch.changes.toLocaleString("en")),
    ...fact("Left", remaining(batch)),
    ...fact("Done", ends(batch)),
    ...fact("Pace", batch.rate_per_second === null ? null : `${number(batch.rate_per_second)} a second`),
    ...fact("Last done", batch.last_done_at === null ? null : moment(batch.last_done_at)));
}

async function tellBatch(name) {
  const batch = last?.batches?.find((each) => each.name === name);
  if (!batch) return;
  openBatch = name;
  say("story-title", `Batch ${name}`);
  const letters = make("div", { class: "list" });
  get("story-body").replaceChildren(make("dl", { class: "facts", id: "batch-facts" }), letters);
  get("story-acts").replaceChildren();
  tellCounts(batch);
  get("story").showModal();
  if (!batch.dead) return;
  const answer = await ask(`/letters?batch=${encodeURIComponent(name)}`);
  if (openBatch !== name) return;
  letters.replaceChildren(make("h3", {}, "Its dead letters"), ...(answer.error
    ? [make("p", { class: "more trouble" }, answer.error)]
    : answer.letters.slice(0, BATCH_LETTERS_SHOWN).map((letter) => make("p", { class: "row" },
      make("span", { class: "grow mono" }, letter.completion_id), make("span", { class: "side" }, letter.reason)))));
}

// Dead letters. A redraw keeps open entries and the focus.

function showReasons(doc) {
  if (doc.reasons === null) return;
  shownReasons = doc.reasons;
  const reasons = Object.entries(doc.reasons).sort((one, other) => other[1].letters - one[1].letters);
  const holder = get("reasons");
  const mark = JSON.stringify(reasons);
  if (holder.dataset.mark === mark) return;
  const before = holder.dataset.mark;
  holder.dataset.mark = mark;
  get("all-acts").hidden = reasons.length === 0;
  if (!reasons.length) {
    holder.replaceChildren(empty("No dead letters", "A change that cannot be applied is kept here, with its reason."));
    return;
  }
  const there = new Map([...holder.querySelectorAll(".reason")].map((each) => [each.dataset.reason, each]));
  const kept = reasons.map(([reason, { letters }]) => {
    const group = there.get(reason) ?? makeReason(reason);
    group.querySelector(".count").textContent = letters.toLocaleString("en");
    return group;
  });
  const same = kept.length === holder.children.length && kept.every((group, place) => holder.children[place] === group);
  if (!same) holder.replaceChildren(...kept);
  if (before !== undefined && openReason) fill(openReason);
}

function makeReason(reason) {
  const group = make("details", { class: "reason", data: { reason } },
    make("summary", {},
      make("span", { class: "grow" }, make("span", { class: "name" }, reason), make("span", { class: "what" }, REASONS[reason] ?? "")),
      make("span", { class: "count" })),
    make("div", { class: "acts" },
      make("button", { data: { do: "replay", reason } }, "Replay these"),
      make("button", { class: "danger", data: { do: "purge", reason } }, "Purge these")),
    make("div", { class: "letters" }));
  group.addEventListener("toggle", () => {
    if (group.open) {
      for (const other of document.querySelectorAll(".reason[open]")) if (other !== group) other.open = false;
      openReason = reason;
      fill(reason);
    } else if (openReason === reason) {
      openReason = null;
    }
  });
  return group;
}

async function fill(reason) {
  const group = [...document.querySelectorAll(".reason")].find((each) => each.dataset.reason === reason);
  if (!group) return;
  const place = group.querySelector(".letters");
  const answer = await ask(`/letters?reason=${encodeURIComponent(reason)}`);
  if (answer.error) {
    place.replaceChildren(make("p", { class: "more trouble" }, answer.error));
    return;
  }
  const focused = document.activeElement?.dataset.letter;
  const rows = answer.letters.map((letter) => make("button", {
    class: "letter", data: { letter: letter.number }, on: ["click", () => tell(letter)],
  }, make("span", { class: "grow mono" }, letter.completion_id),
  make("span", { class: "side quiet" }, [letter.status, duration(Math.max(0, last.at - letter.died_at)) + " ago"].filter(Boolean).join(" · "))));
  const all = shownReasons[reason]?.letters ?? 0;
  if (all > LETTERS_SHOWN) rows.push(make("p", { class: "more quiet" }, `The oldest ${LETTERS_SHOWN} of ${number(all)}.`));
  place.replaceChildren(...rows);
  if (focused) place.querySelector(`[data-letter="${CSS.escape(focused)}"]`)?.focus();
}

function fact(name, value) {
  return value === null || value === undefined || value === "" ? [] : [make("dt", {}, name), make("dd", {}, value)];
}

function tell(letter) {
  openBatch = null;
  say("story-title", `Letter ${letter.number}`);
  const tries = letter.attempts ? `after ${count(letter.attempts, "failed attempt", "failed attempts")}` : "";
  const pairs = Object.entries(letter.metadata).map(([key, value]) => make("div", {},
    make("span", { class: "mono" }, key),
    value === null ? make("em", { class: "quiet" }, "to be removed") : make("span", { class: "mono" }, typeof value === "string" ? value : JSON.stringify(value))));
  get("story-body").replaceChildren(
    make("dl", { class: "facts" },
      ...fact("Completion", make("span", { class: "mono" }, letter.completion_id)),
      ...fact("Reason", `${letter.reason}${REASONS[letter.reason] ? `: ${REASONS[letter.reason]}` : ""}`),
      ...fact("Status", letter.status === null ? null : String(letter.status)),
      ...fact("Error", letter.error),
      ...fact("Request", letter.request_id && make("span", { class: "mono" }, letter.request_id)),
      ...fact("Change", letter.change_id && make("span", { class: "mono" }, letter.change_id)),
      ...fact("Batch", letter.batch && make("span", { class: "mono" }, letter.batch)),
      ...fact("As of", letter.as_of === null ? null : moment(letter.as_of)),
      ...fact("Attempts", String(letter.attempts)),
      ...fact("Mode", letter.mode)),
    letter.odd === null
      ? make("div", { class: "pairs", role: "group", "aria-label": "Metadata" }, ...pairs)
      : make("p", { class: "odd" }, "The stored metadata is not a JSON object: ", make("span", { class: "mono" }, letter.odd)),
    make("ol", { class: "way" },
      make("li", {}, make("time", {}, moment(letter.enqueued_at)), "Enqueued"),
      make("li", { class: "last" }, make("time", {}, moment(letter.died_at)), `Given up ${tries}`)));
  get("story-acts").replaceChildren(
    make("button", { class: "danger", data: { do: "purge", number: letter.number, completion: letter.completion_id } }, "Purge"),
    make("button", { class: "primary", data: { do: "replay", number: letter.number, completion: letter.completion_id } }, "Replay"));
  get("story").showModal();
}

// Actions, once confirmed. They concern the letters that were shown, not ones that came later.

let order = null;

function whatIsMeant({ number: letter, completion, reason }) {
  if (letter) return { number: Number(letter), completion };
  const meant = reason ? [shownReasons[reason]].filter(Boolean) : Object.values(shownReasons);
  return {
    ...(reason ? { reason } : { all: true }),
    newest: Math.max(0, ...meant.map((each) => each.newest)),
    shown: meant.reduce((sum, each) => sum + each.letters, 0),
  };
}

function confirm(button) {
  const { do: verb, reason, number: letter } = button.dataset;
  order = { verb, what: whatIsMeant(button.dataset) };
  const letters = letter ? 1 : order.what.shown;
  const those = letter ? `letter ${letter}` : `${count(letters, "letter", "letters")}${reason ? ` (${reason})` : ""}`;
  const purges = verb === "purge";
  say("sure-title", purges ? `Purge ${those}?` : `Replay ${those}?`);
  const one = letters === 1;
  if (purges) say("sure-text", one ? "It is deleted for good, and its change will never be applied." : "They are deleted for good, and their changes will never be applied.");
  else say("sure-text", one ? "It becomes pending again, as the newest change of its completion." : "They become pending again, as the newest changes of their completions.");
  say("sure-trouble", "");
  get("sure-age").hidden = !purges || Boolean(letter);
  get("older").value = "";
  const go = get("sure-go");
  go.textContent = purges ? "Purge" : "Replay";
  go.className = purges ? "primary danger" : "primary";
  get("sure").showModal();
}

async function carryOut() {
  const { verb } = order;
  const older = get("older").value;
  const what = older ? { ...order.what, older_than_seconds: Number(older) } : order.what;
  const go = get("sure-go");
  go.disabled = true;
  const answer = await ask(`/${verb}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what),
  });
  go.disabled = false;
  if (answer.error) {
    say("sure-trouble", answer.error);
    return;
  }
  get("sure").close();
  get("story").close();
  const kept = (answer.kept ? `; ${count(answer.kept, "stays", "stay")}, as the same change is pending or was applied since` : "")
    + (answer.superseded ? `; ${count(answer.superseded, "stays", "stay")}, as a newer change was applied` : "");
  say("done", verb === "purge" ? `${count(answer.purged, "letter", "letters")} purged.` : `${count(answer.replayed, "letter", "letters")} replayed${kept}.`);
  if (openReason) fill(openReason);
}

async function ask(path, options) {
  try {
    const answer = await fetch(path, options);
    if (answer.status === 401) location.assign("/sign-in");
    const isJson = answer.headers.get("Content-Type")?.startsWith("application/json");
    return isJson ? await answer.json() : { error: (await answer.text()).trim() };
  } catch {
    return { error: "The worker cannot be reached." };
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.do) confirm(button);
  else if (button?.dataset.close) button.closest("dialog").close();
});
get("sure-go").addEventListener("click", carryOut);

// Without a token every user of the machine may look, but only a signed-in user may act.

async function whoLooks() {
  const { acts, error } = await ask("/session");
  if (error) return;
  get("leave").hidden = !acts;
  get("how-to-act").hidden = acts;
  document.body.classList.toggle("onlooker", !acts);
}

// The connection is open only while the page is visible: a browser has six per host, and each tab would hold one.

const FAILED = {
  kind: "blind", title: "The page has no current data",
  detail: "The worker failed to build it; web.failing in its log says why. The work goes on; the figures below are old.",
};

function show(doc) {
  if (doc.failed) return showState({ state: FAILED });
  last = doc;
  showState(doc);
  showFigures(doc);
  showCharts(doc);
  showLatest(doc);
  showReasons(doc);
  showBatches(doc);
  showWorkers(doc);
}

function watch() {
  const silent = heardAt === null ? 0 : Date.now() - heardAt;
  const live = heardAt === null ? null : silent < SILENCE_MS;
  get("connection").dataset.live = live === null ? "" : live ? "yes" : "no";
  document.body.classList.toggle("stale", live === false);
  if (live === false) speak("Not connected.");
  say("word", live === null ? "Connecting" : live ? "Live" : `Not connected; last update ${duration(silent / 1000)} ago`);
}

let events = null;

function listen() {
  if (document.hidden || events) return;
  const stream = new EventSource("/events");
  events = stream;
  stream.addEventListener("message", (event) => {
    heardAt = Date.now();
    try {
      show(JSON.parse(event.data));
    } catch (failure) {
      showState({ state: { ...FAILED, detail: `What the worker sent cannot be shown: ${failure.message}.` } });
    }
    watch();
  });
  stream.addEventListener("error", async () => {
    if (stream.readyState !== EventSource.CLOSED || events !== stream) return; // the browser reconnects by itself
    await whoLooks(); // redirects to the sign-in page if a session is missing
    hangUp();
    setTimeout(listen, 2000);
  });
}

function hangUp() {
  events?.close();
  events = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hangUp();
    heardAt = null;
    document.title = "metasync"; // the last state may be over when the title is read
  } else {
    whoLooks();
    listen();
  }
  watch();
});
setInterval(watch, 1000);
addEventListener("resize", () => last && showCharts(last));
if (location.hash.startsWith("#ticket=")) history.replaceState(null, "", "/"); // a ticket that was not needed
whoLooks();
listen();
