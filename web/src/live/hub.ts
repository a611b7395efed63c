/** One stream for all tabs of a browser, as HTTP/1.1 allows six connections to a server.
 *
 *  Changes are gathered and passed on ten times a second at most, the newest of each object alone.
 */
import { type Change, type Filter, type FromWorker, passes, union } from "./protocol";

const CALM_MS = 200;
const BATCH_MS = 100;
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
  private lostSince: number | null = null;
  private calm: ReturnType<typeof setTimeout> | undefined;
  private batch = new Map<string, Change>();
  private flushing = false;

  /** Set what a tab wants; null for nothing. */
  set(tab: object, filter: Filter | null, send: (message: FromWorker) => void): void {
    this.tabs.set(tab, { filter, send });
    if (this.lostSince !== null) send({ lost: this.lostSince });
    this.later();
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
    if (text === this.shown && this.source && !broken) return;
    this.source?.close();
    this.source = undefined;
    this.shown = text;
    if (!text) return;
    if (this.lastId) query.set("last_event_id", this.lastId);
    this.open(`/api/v1/stream?${query}`);
  }

  private open(url: string): void {
    const source = new EventSource(url);
    this.source = source;
    source.onopen = () => this.setLost(null);
    source.onerror = () => {
      if (source !== this.source) return;
      this.setLost(this.lostSince ?? Date.now());
      // A refusal ends it for good: the browser does not connect again by itself.
      if (source.readyState === EventSource.CLOSED) this.later(RETRY_MS);
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => {
        this.lastId = message.lastEventId;
        const change = { ...JSON.parse(message.data as string), kind } as Change;
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
    setTimeout(() => {
      this.flushing = false;
      const changes = [...this.batch.values()];
      this.batch = new Map();
      for (const { filter, send } of this.tabs.values()) {
        const own = filter ? changes.filter((change) => passes(filter, change)) : [];
        if (own.length) send({ changes: own });
      }
    }, BATCH_MS);
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
