/** What a view has loaded: kept while it is loaded again, and loaded again when it has changed. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { type Change, type Filter, loadedAt, onChanges } from "../live/live";
import { isKnown } from "../live/place";
import { ApiError, placeOf } from "./api";
import { address, setQuery } from "./router";

const LEAST_MS = 100; // between two loads of the same; more where they take long
const MOST_WAIT_MS = 1000;
const SHARE = 4; // of the time at most a fourth is spent with loading the same again

export interface Resource<T> {
  value: T | undefined;
  error: Error | undefined;
  loading: boolean;
  reload: () => void;
}

export interface Options {
  /** Changes after which it is loaded again. */
  filter?: Filter;
  when?: (change: Change) => boolean;
  /** Milliseconds after which it is loaded again anyway, while the page is visible. */
  every?: number;
  /** Milliseconds between two loads at least. */
  least?: number;
}

/** Load what a key names; a new key loads anew. */
export function useResource<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  options: Options = {},
): Resource<T> {
  const [state, setState] = useState<{ key: string; value?: T; error?: Error; loading: boolean }>({
    key,
    loading: true,
  });
  const latest = useRef({ load, options });
  latest.current = { load, options };
  const reload = useRef(() => {});

  // Not after the next frame, as an effect: that would be the later the slower the machine is.
  useLayoutEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let control: AbortController | undefined;
    let startedAt = -MOST_WAIT_MS;
    let pause = LEAST_MS;
    let place: string | undefined; // up to which what is shown is true
    let wanted: string | undefined; // the last change for which it is loaded again
    let must = true; // whatever is known already
    const { filter, every } = latest.current.options;
    const start = async () => {
      timer = undefined;
      if (!must && isKnown(wanted, place)) return; // what was under way when it came has it
      must = false;
      control?.abort();
      const mine = (control = new AbortController());
      startedAt = performance.now();
      try {
        const value = await latest.current.load(mine.signal);
        if (mine.signal.aborted) return;
        pause = Math.min(MOST_WAIT_MS, Math.max(LEAST_MS, SHARE * (performance.now() - startedAt)));
        place = placeOf(mine.signal);
        if (filter) loadedAt(place);
        setState({ key, value, loading: false });
      } catch (error) {
        if (mine.signal.aborted) return;
        const fault = error instanceof Error ? error : new Error(String(error));
        setState((before) => ({
          ...(before.key === key && before.value !== undefined ? { value: before.value } : {}),
          key,
          error: fault,
          loading: false,
        }));
      }
    };
    const again = (id?: string) => {
      if (id) wanted = id;
      else must = true;
      timer ??= setTimeout(start, Math.max(0, startedAt + Math.max(latest.current.options.least ?? 0, pause) - performance.now()));
    };
    reload.current = () => again();
    setState((before) => (before.key === key ? { ...before, loading: true } : { key, loading: true }));
    void start();
    const stop = filter
      ? onChanges(filter, (changes) => {
          const { when } = latest.current.options;
          const fresh = changes?.filter((change) => !isKnown(change.id, place) && (!when || when(change)));
          if (!fresh) again();
          else if (fresh.length) again(fresh.at(-1)!.id);
        })
      : () => {};
    const ticking = every ? setInterval(() => document.hidden || again(), every) : undefined;
    return () => {
      stop();
      clearTimeout(timer);
      clearInterval(ticking);
      control?.abort();
    };
  }, [key]);

  const own = state.key === key;
  return {
    value: own ? state.value : undefined,
    error: own ? state.error : undefined,
    loading: own ? state.loading : true,
    reload: () => reload.current(),
  };
}

export interface PagedResource<T> extends Resource<T[]> {
  /** Load the next page; undefined at the end of the list. */
  more: (() => void) | undefined;
}

interface Part<T> {
  items: readonly T[];
  next?: string | null;
}

export interface Wanted {
  limit: number;
  after: string | undefined;
}

const PAGE = 50;
const MOST = 1000; // of one request

/** How much of a list an address says that there is to be shown. */
const LONG = "pages";

/** Load a list; more of it is a longer list, so that a change costs one request a thousand rows.
 *
 *  The address has how long it is, if it is the `main` list of its view.
 */
export function usePages<T>(
  key: string,
  load: (wanted: Wanted, signal: AbortSignal) => Promise<Part<T>>,
  options: Options & { main?: boolean } = {},
): PagedResource<T> {
  const { main } = options;
  const [wanted, setWanted] = useState({ key, pages: (main && Number(address.peek().query.get(LONG))) || 1 });
  const pages = wanted.key === key ? wanted.pages : 1;
  useLayoutEffect(() => {
    if (main && pages === 1 && address.peek().query.has(LONG)) setQuery({ [LONG]: undefined });
  }, [key]);
  const shown = useRef<{ key: string; items: T[]; next: string | null | undefined } | undefined>(undefined);
  const found = useResource(
    `${key} ${pages}`,
    async (signal) => {
      const items: T[] = [];
      let after: string | undefined;
      let next: string | null | undefined;
      while (items.length < pages * PAGE) {
        const limit = Math.min(MOST, pages * PAGE - items.length);
        const part = await load({ limit, after }, signal);
        items.push(...part.items);
        next = part.next;
        if (!next) break;
        after = next;
      }
      shown.current = { key, items, next };
      return shown.current;
    },
    options,
  );
  const value = found.value ?? (shown.current?.key === key ? shown.current : undefined);
  return {
    ...found,
    value: value?.items,
    more: value?.next
      ? () => {
          setWanted({ key, pages: pages * 2 });
          if (main) setQuery({ [LONG]: String(pages * 2) });
        }
      : undefined,
  };
}

export function isMissing(error: Error | undefined): boolean {
  return error instanceof ApiError && error.status === 404;
}
