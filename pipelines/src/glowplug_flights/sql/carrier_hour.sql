-- Carrier and hour: how its flights out of New York have been going.
WITH slots AS (
  SELECT carrier, scheduled_hour, count(*) AS departures FROM flights GROUP BY carrier, scheduled_hour
), moments AS (
  SELECT carrier, known_hour AS moment,
         count(*) FILTER (kind = 'departure') AS departures,
         sum(delay) FILTER (kind = 'departure') AS departure_delay,
         count(*) FILTER (kind = 'arrival') AS arrivals,
         sum(delay) FILTER (kind = 'arrival') AS arrival_delay,
         count(*) FILTER (kind = 'arrival' AND delay > 15) AS late,
         count(*) FILTER (kind = 'cancellation') AS cancelled
  FROM outcomes GROUP BY carrier, known_hour
  UNION ALL
  SELECT carrier, scheduled_hour, 0, 0, 0, 0, 0, 0 FROM slots
), recent AS (
  SELECT DISTINCT carrier, moment,
         sum(departure_delay) OVER hours / nullif(sum(departures) OVER hours, 0) AS departure_delay_3h,
         sum(arrival_delay) OVER day / nullif(sum(arrivals) OVER day, 0) AS arrival_delay_24h,
         sum(arrival_delay) OVER week / nullif(sum(arrivals) OVER week, 0) AS arrival_delay_7d,
         sum(late) OVER week / nullif(sum(arrivals) OVER week, 0) AS late_share_7d,
         sum(cancelled) OVER week / nullif(sum(departures + cancelled) OVER week, 0) AS cancelled_share_7d
  FROM moments
  WINDOW hours AS (PARTITION BY carrier ORDER BY moment RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW),
         day AS (PARTITION BY carrier ORDER BY moment RANGE BETWEEN INTERVAL 23 HOURS PRECEDING AND CURRENT ROW),
         week AS (PARTITION BY carrier ORDER BY moment RANGE BETWEEN INTERVAL 167 HOURS PRECEDING AND CURRENT ROW)
)
SELECT slots.carrier, strftime(slots.scheduled_hour, '%Y-%m-%dT%H:%MZ') AS scheduled_hour, slots.scheduled_hour AS event_timestamp,
       slots.departures AS carrier_departures_this_hour,
       recent.departure_delay_3h AS carrier_departure_delay_3h,
       recent.arrival_delay_24h AS carrier_arrival_delay_24h,
       recent.arrival_delay_7d AS carrier_arrival_delay_7d,
       recent.late_share_7d AS carrier_late_share_7d,
       recent.cancelled_share_7d AS carrier_cancelled_share_7d
FROM slots JOIN recent ON recent.carrier = slots.carrier AND recent.moment = slots.scheduled_hour
