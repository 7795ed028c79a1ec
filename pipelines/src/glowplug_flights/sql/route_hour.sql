-- Route and hour: calendar, timetable, geography, the weather of the hour before at the origin, recent traffic.
WITH slots AS (
  SELECT origin, dest, scheduled_hour,
         any_value(hour) AS local_hour, any_value(local_date) AS local_date,
         avg(block_minutes) AS scheduled_block_minutes,
         any_value(distance) AS distance_miles, any_value(dest_offset_h) AS dest_utc_offset_h
  FROM flights GROUP BY origin, dest, scheduled_hour
), origin_timetable AS (
  SELECT origin, scheduled_hour, count(*) AS departures FROM flights GROUP BY origin, scheduled_hour
), dest_timetable AS (
  SELECT dest, scheduled_hour, count(*) AS departures FROM flights GROUP BY dest, scheduled_hour
), route_timetable AS (
  SELECT origin, dest, local_date, count(*) AS departures FROM flights GROUP BY origin, dest, local_date
), observations AS (
  SELECT *,
         sum(precip) OVER (
           PARTITION BY origin ORDER BY observed_at RANGE BETWEEN INTERVAL 5 HOURS PRECEDING AND CURRENT ROW
         ) AS precip_6h,
         pressure - first_value(pressure) OVER (
           PARTITION BY origin ORDER BY observed_at RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW
         ) AS pressure_change_3h
  FROM weather
), origin_moments AS (
  SELECT origin, known_hour AS moment,
         count(*) FILTER (kind = 'departure') AS departures,
         sum(delay) FILTER (kind = 'departure') AS departure_delay,
         count(*) FILTER (kind = 'departure' AND delay > 15) AS late,
         count(*) FILTER (kind = 'cancellation') AS cancelled
  FROM outcomes GROUP BY origin, known_hour
  UNION ALL
  SELECT DISTINCT origin, scheduled_hour, 0, 0, 0, 0 FROM slots
), origin_recent AS (
  SELECT DISTINCT origin, moment,
         sum(departure_delay) OVER hour / nullif(sum(departures) OVER hour, 0) AS departure_delay_1h,
         sum(departure_delay) OVER hours / nullif(sum(departures) OVER hours, 0) AS departure_delay_3h,
         sum(late) OVER hours / nullif(sum(departures) OVER hours, 0) AS late_share_3h,
         sum(cancelled) OVER day / nullif(sum(departures + cancelled) OVER day, 0) AS cancelled_share_24h
  FROM origin_moments
  WINDOW hour AS (PARTITION BY origin ORDER BY moment RANGE BETWEEN CURRENT ROW AND CURRENT ROW),
         hours AS (PARTITION BY origin ORDER BY moment RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW),
         day AS (PARTITION BY origin ORDER BY moment RANGE BETWEEN INTERVAL 23 HOURS PRECEDING AND CURRENT ROW)
), dest_moments AS (
  SELECT dest, known_hour AS moment, count(*) AS arrivals, sum(delay) AS delay
  FROM outcomes WHERE kind = 'arrival' GROUP BY dest, known_hour
  UNION ALL
  SELECT DISTINCT dest, scheduled_hour, 0, 0 FROM slots
), dest_recent AS (
  SELECT DISTINCT dest, moment, sum(delay) OVER hours / nullif(sum(arrivals) OVER hours, 0) AS arrival_delay_6h
  FROM dest_moments
  WINDOW hours AS (PARTITION BY dest ORDER BY moment RANGE BETWEEN INTERVAL 5 HOURS PRECEDING AND CURRENT ROW)
), route_moments AS (
  SELECT origin, dest, known_hour AS moment, count(*) AS arrivals, sum(delay) AS delay
  FROM outcomes WHERE kind = 'arrival' GROUP BY origin, dest, known_hour
  UNION ALL
  SELECT origin, dest, scheduled_hour, 0, 0 FROM slots
), route_recent AS (
  SELECT DISTINCT origin, dest, moment,
         sum(delay) OVER week / nullif(sum(arrivals) OVER week, 0) AS arrival_delay_7d,
         sum(delay) OVER weeks / nullif(sum(arrivals) OVER weeks, 0) AS arrival_delay_28d
  FROM route_moments
  WINDOW week AS (PARTITION BY origin, dest ORDER BY moment RANGE BETWEEN INTERVAL 167 HOURS PRECEDING AND CURRENT ROW),
         weeks AS (PARTITION BY origin, dest ORDER BY moment RANGE BETWEEN INTERVAL 671 HOURS PRECEDING AND CURRENT ROW)
)
SELECT slots.origin, slots.dest, strftime(slots.scheduled_hour, '%Y-%m-%dT%H:%MZ') AS scheduled_hour, slots.scheduled_hour AS event_timestamp,
       local_hour AS hour_of_day,
       sin(2 * pi() * local_hour / 24) AS hour_sin,
       cos(2 * pi() * local_hour / 24) AS hour_cos,
       isodow(slots.local_date) AS day_of_week,
       CASE WHEN isodow(slots.local_date) >= 6 THEN 1 ELSE 0 END AS is_weekend,
       day(slots.local_date) AS day_of_month,
       this_hour.departures AS origin_departures_this_hour,
       coalesce(last_hour.departures, 0) AS origin_departures_last_hour,
       dest_hour.departures AS dest_departures_this_hour,
       route_day.departures AS route_departures_this_day,
       scheduled_block_minutes,
       distance_miles,
       origin_airport.lon AS origin_longitude,
       dest_airport.lat AS dest_latitude,
       dest_airport.lon AS dest_longitude,
       dest_airport.alt AS dest_altitude_ft,
       dest_utc_offset_h,
       seen.temp AS temperature_f,
       seen.dewp AS dew_point_f,
       seen.humid AS humidity_percent,
       seen.wind_speed AS wind_speed_mph,
       seen.wind_gust AS wind_gust_mph,
       seen.wind_speed * sin(radians(seen.wind_dir)) AS wind_from_east_mph,
       seen.wind_speed * cos(radians(seen.wind_dir)) AS wind_from_north_mph,
       seen.precip AS precipitation_in,
       seen.precip_6h AS precipitation_6h_in,
       seen.pressure AS pressure_hpa,
       seen.pressure_change_3h AS pressure_change_3h_hpa,
       seen.visib AS visibility_miles,
       origin_recent.departure_delay_1h AS origin_departure_delay_1h,
       origin_recent.departure_delay_3h AS origin_departure_delay_3h,
       origin_recent.late_share_3h AS origin_late_share_3h,
       origin_recent.cancelled_share_24h AS origin_cancelled_share_24h,
       dest_recent.arrival_delay_6h AS dest_arrival_delay_6h,
       route_recent.arrival_delay_7d AS route_arrival_delay_7d,
       route_recent.arrival_delay_28d AS route_arrival_delay_28d
FROM slots
JOIN origin_timetable this_hour USING (origin, scheduled_hour)
LEFT JOIN origin_timetable last_hour
  ON last_hour.origin = slots.origin AND last_hour.scheduled_hour = slots.scheduled_hour - INTERVAL 1 HOUR
JOIN dest_timetable dest_hour ON dest_hour.dest = slots.dest AND dest_hour.scheduled_hour = slots.scheduled_hour
JOIN route_timetable route_day
  ON route_day.origin = slots.origin AND route_day.dest = slots.dest AND route_day.local_date = slots.local_date
LEFT JOIN airports origin_airport ON origin_airport.faa = slots.origin
LEFT JOIN airports dest_airport ON dest_airport.faa = slots.dest
-- The observation is known once its hour is over: the newest one from at least an hour before the slot.
ASOF LEFT JOIN observations seen
  ON seen.origin = slots.origin AND slots.scheduled_hour - INTERVAL 1 HOUR >= seen.observed_at
JOIN origin_recent ON origin_recent.origin = slots.origin AND origin_recent.moment = slots.scheduled_hour
JOIN dest_recent ON dest_recent.dest = slots.dest AND dest_recent.moment = slots.scheduled_hour
JOIN route_recent ON route_recent.origin = slots.origin AND route_recent.dest = slots.dest
  AND route_recent.moment = slots.scheduled_hour
