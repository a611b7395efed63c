import { Hub } from "./hub";
import type { FromWorker, ToWorker } from "./protocol";

const hub = new Hub();

(self as unknown as SharedWorkerGlobalScope).onconnect = (event) => {
  const port = event.ports[0]!;
  port.onmessage = (message: MessageEvent<ToWorker>) => {
    const said = message.data;
    if ("bye" in said) hub.leave(port);
    else hub.set(port, said.filter, (answer: FromWorker) => port.postMessage(answer), said.place);
  };
};
