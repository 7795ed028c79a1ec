-- A line of text for each flight, written as it leaves: the timetable, the aircraft, the weather an hour before, and how
-- late it left. Late is what the FAA counts as late: 15 minutes or more at the gate.

SELECT lower(concat_ws(' ',
         carriers.name, flights.origin, 'to', flights.dest, '.',
         dayname(flights.local_date), flights.hour || 'h', '.',
         coalesce(planes.manufacturer || ' of ' || planes.year, 'aircraft unknown'), '.',
         CASE WHEN weather.wind_speed IS NULL THEN 'weather unknown' ELSE concat_ws(' ',
           CASE WHEN weather.wind_speed < 8 THEN 'calm' WHEN weather.wind_speed < 18 THEN 'breeze' ELSE 'wind' END,
           CASE WHEN weather.precip > 0.05 THEN 'storm' WHEN weather.precip > 0 THEN 'rain' ELSE 'dry' END,
           CASE WHEN weather.visib < 3 THEN 'fog' WHEN weather.visib < 9 THEN 'haze' ELSE 'clear' END) END, '.',
         CASE WHEN flights.dep_delay < 0 THEN 'left early' WHEN flights.dep_delay < 5 THEN 'left on time'
              ELSE 'left ' || CAST(least(flights.dep_delay // 5 * 5, 60) AS INTEGER) || ' minutes late' END
       )) AS notice,
       CASE WHEN flights.arrived_at < TIMESTAMP $stop THEN CAST(flights.arr_delay >= 15 AS DOUBLE) END AS label,
       flights.departed_at AS event_timestamp, flights.carrier AS by_carrier, flights.origin AS by_origin
FROM flights
JOIN read_csv($airlines) AS carriers ON carriers.carrier = flights.carrier
LEFT JOIN planes ON planes.tailnum = flights.tailnum
LEFT JOIN weather ON weather.origin = flights.origin
  AND weather.observed_at = flights.scheduled_hour - INTERVAL 1 HOUR
WHERE flights.arr_delay IS NOT NULL AND flights.departed_at >= TIMESTAMP $start AND flights.departed_at < TIMESTAMP $stop
  AND hash(flights.carrier, flights.flight, flights.origin, flights.scheduled_at) % 1000 < $share
ORDER BY flights.departed_at, flights.carrier, flights.flight, flights.origin
