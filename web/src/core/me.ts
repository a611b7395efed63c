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

/** Whether the address is a link that signs in: nothing is asked for before it has done so. */
export function followsLink(): boolean {
  return following.value;
}

const following = signal(location.hash.startsWith(CODE));

/** Sign in by the link that was followed, if one was; its code leaves the address at once. */
export async function followSignInLink(): Promise<void> {
  if (!location.hash.startsWith(CODE)) return;
  const code = decodeURIComponent(location.hash.slice(CODE.length));
  history.replaceState(null, "", location.pathname + location.search);
  try {
    me.value = await call("POST /api/v1/session", { body: { code } });
  } catch (error) {
    trouble.value = (error as Error).message;
  } finally {
    following.value = false;
  }
}

export async function signOut(): Promise<void> {
  const ended = (await call("DELETE /api/v1/session")) as { url?: string } | undefined;
  // The provider signs out too, where it offers that; else its next sign-in would ask nothing.
  if (ended?.url) location.assign(ended.url);
  else await loadMe();
}

const RANK = { emitter: 0, viewer: 1, operator: 2, admin: 3 };

/** Roles on DAGs, of those who have one on some; the server knows patterns and tags. */
const onDags = signal<Readonly<Record<string, MeView["role"]>>>({});
const asked = new Set<string>();

async function ask(dag: string): Promise<void> {
  if (asked.has(dag)) return;
  asked.add(dag);
  try {
    const found = await call("GET /api/v1/me", { query: { dag } });
    onDags.value = { ...onDags.value, [dag]: found.role };
  } catch {
    asked.delete(dag);
  }
}

/** What an action is about, where a role on it is enough. */
export interface About {
  dag?: string | undefined;
  dataset?: boolean;
}

/** Return why a role does not suffice; undefined if it does. */
export function lacking(role: "viewer" | "operator" | "admin", about: About = {}): string | undefined {
  const own = me.value?.role;
  if (own && RANK[own] >= RANK[role]) return undefined;
  const grants = me.value?.grants ?? [];
  // Of which datasets is the server's to say: its answer names the place.
  const enough = new RegExp(`^(${["viewer", "operator", "admin"].slice(RANK[role] - 1).join("|")}):dataset=`);
  if (about.dataset && grants.some((each) => enough.test(each))) return undefined;
  const { dag } = about;
  if (dag === undefined || grants.length === 0) {
    if (!grants.length) return `This needs the role ${role}; yours is ${own ?? "none"}.`;
    const yours = own === "emitter" ? "you have roles on some DAGs or datasets alone" : `yours is ${own}`;
    return `This needs the role ${role} on everything; ${yours}.`;
  }
  const there = onDags.value[dag];
  if (there === undefined) {
    queueMicrotask(() => void ask(dag));
    return "Your role on this DAG is being looked up.";
  }
  if (RANK[there] >= RANK[role]) return undefined;
  return `This needs the role ${role} on ${dag}; yours there is ${there}.`;
}
