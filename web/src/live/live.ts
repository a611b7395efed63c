/** Changes as they happen, for the views that are open in this tab. */
import { signal } from "@preact/signals";
import { Hub } from "./hub";
import { type Change, type Filter, type FromWorker, type ToWorker, passes, union } from "./protocol";

export type { Change, Filter } from "./protocol";

declare const STREAM_WORKER: string;

/** Since when there is no connection; null while there is one. */
export const lostSince = signal<number | null>(null);

type Listener = (changes: readonly Change[] | null) => void;

interface Policies {
  createPolicy(
    name: string,
    rules: { createScriptURL(url: string): string },
  ): { createScriptURL(url: string): string };
}

const listeners = new Map<object, { filter: Filter; listen: Listener }>();
let send: ((message: ToWorker) => void) | undefined;
let told = "";
let begun = false;

function receive(message: FromWorker): void {
  if ("lost" in message) lostSince.value = message.lost;
  else if ("reset" in message) for (const { listen } of listeners.values()) listen(null);
  else {
    for (const { filter, listen } of listeners.values()) {
      const own = message.changes.filter((change) => passes(filter, change));
      if (own.length) listen(own);
    }
  }
}

function connect(): (message: ToWorker) => void {
  if (typeof SharedWorker === "undefined") {
    const hub = new Hub();
    return (message) => ("bye" in message ? hub.leave(hub) : hub.set(hub, message.filter, receive, message.place));
  }
  const { trustedTypes } = window as { trustedTypes?: Policies };
  const own = `/ui/${STREAM_WORKER}`;
  const policy = trustedTypes?.createPolicy("psf", { createScriptURL: (url) => url });
  const worker = new SharedWorker(policy?.createScriptURL(own) ?? own, { type: "module" });
  worker.port.onmessage = (message: MessageEvent<FromWorker>) => receive(message.data);
  return (message) => worker.port.postMessage(message);
}

function tell(): void {
  const filter = union([...listeners.values()].map((each) => each.filter));
  const text = JSON.stringify(filter);
  if (text === told) return;
  told = text;
  send ??= connect();
  send({ filter });
}

/** Call a function with changes; with null when all may have changed. Return what ends that. */
export function onChanges(filter: Filter, listen: Listener): () => void {
  const key = {};
  listeners.set(key, { filter, listen });
  tell();
  return () => {
    listeners.delete(key);
    // Another view may be about to want the same.
    queueMicrotask(tell);
  };
}

/** Say up to which place a view is true that was loaded: there its stream has to begin. */
export function loadedAt(place: string | undefined): void {
  if (begun || !told || told === "null") return;
  begun = true;
  send?.({ filter: JSON.parse(told) as Filter, place: place ?? null });
}

addEventListener("pagehide", () => send?.({ bye: true }));
addEventListener("pageshow", (event) => {
  if (!(event as PageTransitionEvent).persisted) return;
  told = "";
  tell();
  for (const { listen } of listeners.values()) listen(null);
});
