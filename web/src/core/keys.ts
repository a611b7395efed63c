/** Keys: single letters act where no text is entered, and can be switched off (WCAG 2.1.4). */
import { signal } from "@preact/signals";

export interface Key {
  keys: string;
  about: string;
  act: () => void;
}

const STORED = "psf-keys";
export const lettersOn = signal(localStorage.getItem(STORED) !== "off");
export const bound = signal<readonly Key[]>([]);
let first = "";
let timer: ReturnType<typeof setTimeout> | undefined;

export function switchLetters(on: boolean): void {
  lettersOn.value = on;
  localStorage.setItem(STORED, on ? "on" : "off");
}

/** Bind keys, such as `g d`; the returned function removes them. */
export function bind(...keys: Key[]): () => void {
  bound.value = [...bound.value, ...keys];
  return () => {
    bound.value = bound.value.filter((each) => !keys.includes(each));
  };
}

function enters(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

export function listenToKeys(openPalette: () => void): void {
  document.addEventListener("keydown", (event) => {
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      openPalette();
      return;
    }
    if (event.metaKey || event.ctrlKey || event.altKey || enters(event.target)) return;
    if (!lettersOn.value || document.querySelector("dialog[open]") || event.key.length > 1) return;
    const typed = first ? `${first} ${event.key}` : event.key;
    // The newest first: a view's keys go before those of the shell.
    const found = bound.value.findLast((each) => each.keys === typed);
    clearTimeout(timer);
    first = "";
    if (found) {
      event.preventDefault();
      found.act();
    } else if (bound.value.some((each) => each.keys.startsWith(`${typed} `))) {
      first = typed;
      timer = setTimeout(() => {
        first = "";
      }, 1200);
    }
  });
}
