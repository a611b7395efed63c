/** Who is signed in, and what they may do. */
import type { MeView } from "#routes";
import { signal } from "@preact/signals";
import { ApiError, call } from "./api";

/** Undefined until it is known; null where signing in is needed. */
export const me = signal<MeView | null | undefined>(undefined);
export const trouble = signal("");

export async function loadMe(): Promise<void> {
  try {
    me.value = await call("GET /api/v1/me");
    trouble.value = "";
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) me.value = null;
    else {
      trouble.value = String((error as Error).message);
      if (me.value === undefined) setTimeout(loadMe, 2000);
    }
  }
}

const CODE = "#sign-in=";

/** Sign in by the link that was followed, if one was; its code leaves the address at once. */
export async function followSignInLink(): Promise<void> {
  if (!location.hash.startsWith(CODE)) return;
  const code = decodeURIComponent(location.hash.slice(CODE.length));
  history.replaceState(null, "", location.pathname + location.search);
  try {
    me.value = await call("POST /api/v1/session", { body: { code } });
  } catch (error) {
    trouble.value = (error as Error).message;
  }
}

export async function signOut(): Promise<void> {
  await call("DELETE /api/v1/session");
  await loadMe();
}

const RANK = { emitter: 0, viewer: 1, operator: 2, admin: 3 };

/** Return why a role does not suffice; undefined if it does. */
export function lacking(role: "viewer" | "operator" | "admin"): string | undefined {
  const own = me.value?.role;
  if (own && RANK[own] >= RANK[role]) return undefined;
  return `This needs the role ${role}; yours is ${own ?? "none"}.`;
}
