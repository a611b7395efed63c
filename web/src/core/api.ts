/** Calls of the API. A route, a parameter or a field that does not exist is a type error. */
import type { Problem, Routes } from "#routes";
import { signal } from "@preact/signals";
import { earlier } from "../live/place";

export type Route = keyof Routes;
export type Answer<R extends Route> = Routes[R]["answer"];
export type Query<R extends Route> = Routes[R]["query"];

export interface Call<R extends Route> {
  path?: Routes[R]["path"];
  query?: { readonly [Name in keyof Query<R>]?: Query<R>[Name] | undefined };
  body?: Routes[R]["body"];
  revision?: string;
}

/** A response that is an error, with the sentence that the server gives for it. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly problem: Partial<Problem>,
  ) {
    super(problem.detail ?? `the server answered with status ${status}`);
  }
}

const PLACE = "Psf-Place";
const places = new WeakMap<AbortSignal, string | null>();

/** Return up to which place of the live stream all is true that was loaded under a signal. */
export function placeOf(signal: AbortSignal): string | undefined {
  return places.get(signal) ?? undefined;
}

/** Grows when a request is refused for lack of a session. */
export const refusals = signal(0);

export function urlOf<R extends Route>(route: R, call: Call<R> = {}): string {
  const names = (call.path ?? {}) as Record<string, string>;
  const path = route
    .slice(route.indexOf(" ") + 1)
    .replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(names[name] ?? ""));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries((call.query ?? {}) as Record<string, unknown>)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") query.append(name, String(each));
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export async function request<R extends Route>(
  route: R,
  call: Call<R> = {},
  signal?: AbortSignal,
): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (signal && route.startsWith("GET ")) headers[PLACE] = "wanted";
  const init: RequestInit = { method: route.slice(0, route.indexOf(" ")), headers };
  if (signal) init.signal = signal;
  if (call.body !== undefined) {
    headers["Content-Type"] = "application/json";
    headers["Pubsubflow-Source"] = "page";
    init.body = JSON.stringify(call.body);
  }
  if (call.revision) headers["If-Match"] = `"${call.revision}"`;
  let response: Response;
  try {
    response = await fetch(urlOf(route, call), init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { detail: "the server cannot be reached" });
  }
  if (signal && route.startsWith("GET ")) {
    // Of several answers the first one counts: all later ones have at least as much.
    const place = response.headers.get(PLACE);
    const known = places.get(signal);
    places.set(signal, known === undefined ? place : earlier(known, place));
  }
  if (!response.ok) {
    if (response.status === 401 && route !== "POST /api/v1/session") refusals.value++;
    throw new ApiError(response.status, (await response.json().catch(() => ({}))) as Problem);
  }
  return response;
}

export async function call<R extends Route>(
  route: R,
  call: Call<R> = {},
  signal?: AbortSignal,
): Promise<Answer<R>> {
  const response = await request(route, call, signal);
  return (response.status === 204 ? undefined : await response.json()) as Answer<R>;
}

/** Return a message for people. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
