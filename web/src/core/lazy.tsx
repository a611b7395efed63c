/** Views whose code is loaded when they are opened first. */
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Problem } from "../ui/parts";

export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let loaded: ComponentType<P> | undefined;
  return function Lazy(props: P) {
    const [, again] = useState(0);
    const [error, setError] = useState<unknown>();
    useEffect(() => {
      if (loaded) return;
      load()
        .then((view) => {
          loaded = view;
          again((count) => count + 1);
        })
        .catch(setError);
    }, []);
    if (loaded) {
      const View = loaded;
      return <View {...props} />;
    }
    // A page that was built anew has other files: only loading all of it helps.
    if (error) return <Problem error="This view cannot be loaded." retry={() => location.reload()} />;
    return (
      <p class="loading" role="status">
        Loading the view…
      </p>
    );
  };
}
