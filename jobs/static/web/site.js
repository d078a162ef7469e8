// What htmx's attributes cannot say. Every page works without this file, too.
"use strict";

document.getElementById("show-price")?.remove();  // it shows by itself

// --- what was shown once was made by a POST: a reload would make another

if (document.querySelector(".secret")) history.replaceState(null, "", location.href);

// --- a file field brings its files at once, so that the price knows them and nothing is sent twice

const refused = new Map();  // name of a field → what to say of files that were not taken, until others are brought

document.addEventListener("change", async (event) => {
  const input = event.target;
  if (!input.matches("input[type=file][data-bring]") || !input.files.length) return;
  event.stopImmediatePropagation();
  const name = input.dataset.bring, form = input.form;
  const told = document.getElementById(`${name}-coming`);
  const failed = [];
  refused.delete(name);
  input.disabled = true;
  for (const file of input.files) {
    try {
      add(form, name, "many" in input.dataset, await bring(form, file, told));
    } catch (problem) {
      failed.push(`${file.name}: ${problem.message}`);
    }
  }
  input.disabled = false;
  input.value = "";
  refused.set(name, failed);
  tell();
  document.getElementById("refresh").click();
}, true);

document.addEventListener("submit", (event) => {
  if (!event.target.querySelector("input[data-bring]:disabled")) return;
  event.preventDefault();  // the file that is still coming would be left behind
  event.target.querySelector("progress").scrollIntoView({ block: "center" });
}, true);

function bring(form, file, told) {
  const bar = document.createElement("progress");
  const words = document.createElement("span");
  words.className = "small";
  words.textContent = `Bringing ${file.name} …`;
  bar.setAttribute("aria-label", words.textContent);
  bar.max = file.size || 1;
  told.replaceChildren(words, bar);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(), body = new FormData();
    body.append("file", file);
    request.open("POST", "/api/uploads/");
    request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
    request.responseType = "json";
    request.upload.onprogress = (now) => { bar.value = now.loaded; };
    request.onerror = () => reject(new Error("The connection broke; try again."));
    request.onload = () => {
      if (request.status === 201) resolve(request.response);
      else reject(new Error(request.response?.detail || "It was not taken."));
    };
    request.send(body);
  });
}

function add(form, name, many, upload) {
  if (many) {
    const hidden = document.createElement("input");
    hidden.type = "hidden";
    hidden.name = name;
    hidden.value = upload.reference;
    document.getElementById("fields").append(hidden);
  } else {
    document.getElementById(name).add(new Option(upload.name, upload.reference, true, true));
  }
}

function tell() {
  for (const [name, failed] of refused) {
    document.getElementById(`${name}-coming`)?.replaceChildren(...failed.map((sentence) => {
      const line = document.createElement("p");
      line.className = "error";
      line.textContent = sentence;
      return line;
    }));
  }
}

// --- what is live asks anew whenever an event says so; while the stream stands, its polling rests

const EVENTS = ["queued", "running", "retry", "succeeded", "failed", "canceled", "deleted"].map((name) => `job.${name}`);
const PAUSE = 400; // milliseconds between two questions
let stream = null, asking = null;

function ask() {
  asking ??= setTimeout(() => {
    asking = null;
    const live = document.querySelector("[data-live]");
    if (live) htmx.trigger(live, "refresh");
  }, PAUSE);
}

function listen() {
  const address = document.querySelector("[data-events]")?.dataset.events;
  if (stream && (!address || stream.readyState === EventSource.CLOSED)) {
    stream.close();
    stream = null;
  }
  if (!address || stream) return;
  stream = new EventSource(address);
  for (const name of ["progress", ...EVENTS]) stream.addEventListener(name, ask);
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const polls = "live" in event.target.dataset && !event.detail.requestConfig.triggeringEvent;
  if (polls && stream?.readyState === EventSource.OPEN) event.preventDefault();
});

// --- the tab's icon shows the progress

function icon() {
  const at = document.querySelector("#progress[data-live]")?.dataset.percent;
  const link = document.getElementById("icon");
  if (link && at !== undefined) link.href = `/my/progress/${at}.svg`;
  if (link && at === undefined && link.dataset.plain) link.href = link.dataset.plain;
}

function settled() {
  tell();  // whatever was swapped in: the answer to our refresh, or to one before it
  icon();
  listen();
}

document.addEventListener("htmx:afterSettle", settled);
settled();
