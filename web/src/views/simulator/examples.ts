/** Examples of docs/schedules.md, with events that show what is special about each. */

export interface Example {
  name: string;
  schedule: string;
  events: readonly string[];
}

const day = (time: string, rest: string) => `2026-11-20T${time}:00Z ${rest}`;
const orders = 'Dataset("s3://lake/orders")';
const rates = 'Dataset("s3://lake/rates")';

export const EXAMPLES: readonly Example[] = [
  {
    name: "Both: a & b",
    schedule: `${orders} & ${rates}`,
    events: [day("09:00", "s3://lake/orders"), day("09:10", "s3://lake/orders"), day("09:20", "s3://lake/rates")],
  },
  {
    name: "Only some: where",
    schedule: `${orders}.where("event.extra.rows > 0") | ${rates}`,
    events: [
      day("09:00", 's3://lake/orders {"rows":0}'),
      day("09:10", 's3://lake/orders {"rows":3}'),
      day("09:20", "s3://lake/rates"),
    ],
  },
  {
    name: "Not too old: within",
    schedule: `${orders}.within(timedelta(hours=1)) & ${rates}`,
    events: [
      day("09:00", "s3://lake/orders"),
      day("10:30", "s3://lake/rates"),
      day("10:45", "s3://lake/orders"),
    ],
  },
  {
    name: "When an input is late: or_after",
    schedule: `(${orders} & ${rates}).or_after(timedelta(hours=2), then="run")`,
    events: [day("09:00", "s3://lake/orders"), day("12:00", "s3://lake/rates")],
  },
  {
    name: "Many into one run: batch",
    schedule: `batch(${orders}, max_events=3, linger=timedelta(minutes=30))`,
    events: ["09:00", "09:05", "09:10", "10:00"].map((time) => day(time, "s3://lake/orders")),
  },
  {
    name: "Time and datasets: Cron & a",
    schedule: `Cron("0 10 * * *") & ${orders}`,
    events: [day("09:00", "s3://lake/orders"), day("11:00", "s3://lake/orders")],
  },
  {
    name: "Per partition: partitioned",
    schedule: `partitioned(${orders} & ${rates})`,
    events: [
      day("09:00", "s3://lake/orders eu"),
      day("09:10", "s3://lake/rates us"),
      day("09:20", "s3://lake/rates eu"),
    ],
  },
];
