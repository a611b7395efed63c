/** One stream for all tabs of a browser, as HTTP/1.1 allows six connections to a server.
 *
 *  Changes are gathered and passed on ten times a second at most, the newest of each object alone.
 */
import { earlier } from "./place.ts";
import { type Change, type Filter, type FromWorker, passes, union } from "./protocol.ts";

const CALM_MS = 200;
const BATCH_MS = 100;
const FIRST_MS = 3000;
const RETRY_MS = 3000;
const KINDS = ["run", "task", "dataset", "dag", "import"];

interface Tab {
  filter: Filter | null;
  send: (message: FromWorker) => void;
}

export class Hub {
  private readonly tabs = new Map<object, Tab>();
  private source: EventSource | undefined;
  private shown = "";
  private lastId = "";
  /** Where the stream was when somebody wanted more of it: there it begins anew. */
  private from = "";
  private began = false;
  private blind = false;
  private lostSince: number | null = null;
  private calm: ReturnType<typeof setTimeout> | undefined;
  private batch = new Map<string, Change>();
  private flushing = false;
  private flushedAt = 0;

  /** Set what a tab wants; null for nothing.
   *
   *  The first stream begins at the place up to which the tab's views are true. A later one, with what
   *  further views want, begins where the stream was before these were loaded.
   */
  set(tab: object, filter: Filter | null, send: (message: FromWorker) => void, place?: string | null): void {
    this.tabs.set(tab, { filter, send });
    if (this.lostSince !== null) send({ lost: this.lostSince });
    if (!this.began && place) this.lastId = earlier(this.lastId || place, place) ?? place;
    this.from ||= this.lastId;
    // Until the views of the first tab have loaded it is not known where to begin.
    this.later(this.began || this.lastId || place === null ? CALM_MS : FIRST_MS);
  }

  leave(tab: object): void {
    this.tabs.delete(tab);
    this.later();
  }

  private later(delay = CALM_MS): void {
    clearTimeout(this.calm);
    this.calm = setTimeout(() => this.connect(), delay);
  }

  private connect(): void {
    const wanted = union([...this.tabs.values()].flatMap((tab) => tab.filter ?? []));
    const query = new URLSearchParams();
    for (const kind of wanted?.kinds ?? []) query.append("kind", kind);
    for (const dag of wanted?.dags ?? []) query.append("dag", dag);
    for (const run of wanted?.runs ?? []) query.append("run", run);
    const text = wanted ? query.toString() : "";
    const broken = this.source?.readyState === EventSource.CLOSED;
    const from = this.from || this.lastId;
    this.from = "";
    if (text === this.shown && this.source && !broken) return;
    this.source?.close();
    this.source = undefined;
    this.shown = text;
    if (!text) return;
    if (from) query.set("last_event_id", from);
    // Views that were loaded before may have missed something.
    this.blind = !from;
    this.began = true;
    this.open(`/api/v1/stream?${query}`);
  }

  private open(url: string): void {
    const source = new EventSource(url);
    this.source = source;
    source.onopen = () => {
      this.setLost(null);
      if (this.blind) this.send({ reset: true });
      this.blind = false;
    };
    source.onerror = () => {
      if (source !== this.source) return;
      this.setLost(this.lostSince ?? Date.now());
      // A refusal ends it for good: the browser does not connect again by itself.
      if (source.readyState === EventSource.CLOSED) this.later(RETRY_MS);
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => {
        this.lastId = message.lastEventId;
        const change = { ...JSON.parse(message.data as string), kind, id: message.lastEventId } as Change;
        // The newest one of an object stands where it came, so that the last one is the newest of all.
        this.batch.delete(nameOf(change));
        this.batch.set(nameOf(change), change);
        this.flushLater();
      });
    }
    source.addEventListener("reset", (message) => {
      this.lastId = message.lastEventId;
      this.send({ reset: true });
    });
  }

  private flushLater(): void {
    if (this.flushing) return;
    this.flushing = true;
    // After a calm the first change goes on with what came with it; those that follow are gathered.
    const wait = Math.max(0, this.flushedAt + BATCH_MS - Date.now());
    setTimeout(() => {
      this.flushing = false;
      this.flushedAt = Date.now();
      const changes = [...this.batch.values()];
      this.batch = new Map();
      for (const { filter, send } of this.tabs.values()) {
        const own = filter ? changes.filter((change) => passes(filter, change)) : [];
        if (own.length) send({ changes: own });
      }
    }, wait);
  }

  private setLost(since: number | null): void {
    if (since === this.lostSince) return;
    this.lostSince = since;
    this.send({ lost: since });
  }

  private send(message: FromWorker): void {
    for (const tab of this.tabs.values()) tab.send(message);
  }
}

function nameOf(change: Change): string {
  const { kind, run_id, task_id, map_index, event_id, dag_id } = change;
  return [kind, run_id, task_id, map_index, event_id, dag_id].join(" ");
}
