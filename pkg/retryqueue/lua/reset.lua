-- Empties the index of a partition if it still stands where the caller thinks.
-- KEYS: due, off, every bucket. ARGV: the offset that the index must have ('' for none).
-- Returns {1, ''}, or {0, the offset that the index has}.
local have = redis.call('GET', KEYS[2]) or ''
if have ~= ARGV[1] then
  return {0, have}
end
for k = 1, #KEYS do
  redis.call('DEL', KEYS[k])
end
return {1, ''}
