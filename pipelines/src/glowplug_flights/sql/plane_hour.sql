-- Aircraft and hour: how late it last arrived from New York, and how it has been lately.
WITH slots AS (
  SELECT DISTINCT tailnum, scheduled_hour FROM flights WHERE tailnum IS NOT NULL
), arrivals AS (
  SELECT tailnum, arrived_at, max(arr_delay) AS delay
  FROM flights WHERE arrived_at IS NOT NULL AND tailnum IS NOT NULL GROUP BY tailnum, arrived_at
), moments AS (
  SELECT tailnum, known_hour AS moment, count(*) AS arrivals, sum(delay) AS delay
  FROM outcomes WHERE kind = 'arrival' AND tailnum IS NOT NULL GROUP BY tailnum, known_hour
  UNION ALL
  SELECT tailnum, scheduled_hour, 0, 0 FROM slots
), recent AS (
  SELECT DISTINCT tailnum, moment,
         sum(arrivals) OVER week AS arrivals_7d,
         sum(delay) OVER weeks / nullif(sum(arrivals) OVER weeks, 0) AS arrival_delay_28d
  FROM moments
  WINDOW week AS (PARTITION BY tailnum ORDER BY moment RANGE BETWEEN INTERVAL 167 HOURS PRECEDING AND CURRENT ROW),
         weeks AS (PARTITION BY tailnum ORDER BY moment RANGE BETWEEN INTERVAL 671 HOURS PRECEDING AND CURRENT ROW)
)
SELECT slots.tailnum, strftime(slots.scheduled_hour, '%Y-%m-%dT%H:%MZ') AS scheduled_hour, slots.scheduled_hour AS event_timestamp,
       last_one.delay AS plane_last_arrival_delay,
       least(epoch(slots.scheduled_hour - last_one.arrived_at) / 3600, 168) AS plane_hours_since_arrival,
       recent.arrivals_7d AS plane_arrivals_7d,
       recent.arrival_delay_28d AS plane_arrival_delay_28d
FROM slots
JOIN recent ON recent.tailnum = slots.tailnum AND recent.moment = slots.scheduled_hour
ASOF LEFT JOIN arrivals last_one
  ON last_one.tailnum = slots.tailnum AND slots.scheduled_hour >= last_one.arrived_at
