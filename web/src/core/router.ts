/** Addresses: every view can be restored from its own. */
import { signal } from "@preact/signals";

export const BASE = "/ui";

export interface Address {
  path: string;
  query: URLSearchParams;
}

const current = (): Address => ({
  path: location.pathname.slice(BASE.length).replace(/\/+$/, "") || "/",
  query: new URLSearchParams(location.search),
});

export const address = signal<Address>(current());

export function navigate(to: string, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  const before = address.value.path;
  address.value = current();
  if (!replace && address.value.path !== before) scrollTo(0, 0);
}

/** Return the address of a view, each part encoded. */
export function to(...parts: (string | number)[]): string {
  return `${BASE}/${parts.map((part) => encodeURIComponent(part)).join("/")}`;
}

/** Change parameters of the address of this view; empty ones are removed. */
export function setQuery(changes: Record<string, string | string[] | undefined>): void {
  const query = new URLSearchParams(address.value.query);
  for (const [name, value] of Object.entries(changes)) {
    query.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) if (each) query.append(name, each);
  }
  const text = query.toString();
  navigate(location.pathname + (text ? `?${text}` : ""), { replace: true });
}

/** Follow links within the page without loading it anew. */
export function followLinks(): void {
  addEventListener("popstate", () => {
    address.value = current();
  });
  document.addEventListener("click", (event) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link || link.target || link.origin !== location.origin || link.hash) return;
    if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
    event.preventDefault();
    navigate(link.pathname + link.search);
  });
}
