-- Copies requests and their answers to whoever listens on a unix socket; run by Envoy, in a request's way.
--
-- Nothing here waits: bodies are read as they pass, and what finds no room is not copied, and counted in Envoy's
-- statistic `uncopied`. Each copy is one frame, or several where its body is large; `frames.py` reads them. Who listens
-- need not be awake, or there: what the sockets hold waits for it.
--
-- In front of this stand SOCKET, NAME, MAX_BODY_BYTES and ANSWER_HEADERS, see `script.py`. A mistake in what is passed
-- to C ends Envoy: it gets numbers, the address, and Lua's own strings with their length; every result is looked at.

local ffi = require("ffi")
local C = ffi.C
-- Compiling takes moments that a request would wait for, and there is little to gain from it.
jit.off()

ffi.cdef [[
int socket(int domain, int type, int protocol);
int connect(int fd, const void *address, unsigned int length);
int setsockopt(int fd, int level, int name, const void *value, unsigned int length);
long send(int fd, const char *data, size_t length, int flags);
int close(int fd);
int getpid(void);
typedef struct { int fd; } glowplug_connection;
]]

local IS_LINUX = ffi.os == "Linux"
if IS_LINUX then
  ffi.cdef [[typedef struct { unsigned short family; char path[108]; } glowplug_address;]]
else
  ffi.cdef [[typedef struct { unsigned char length; unsigned char family; char path[104]; } glowplug_address;]]
end
local AF_UNIX = 1
-- SOCK_STREAM; on Linux with SOCK_NONBLOCK and SOCK_CLOEXEC.
local SOCKET_TYPE = IS_LINUX and 1 + 0x800 + 0x80000 or 1
-- MSG_DONTWAIT; on Linux with MSG_NOSIGNAL (elsewhere Envoy ignores the signal).
local SEND_FLAGS = IS_LINUX and 0x40 + 0x4000 or 0x80
local SOL_SOCKET = IS_LINUX and 1 or 0xffff
local SO_SNDBUF = IS_LINUX and 7 or 0x1001
-- What Linux gives to everybody (wmem_max); it takes twice as much.
local SEND_BUFFER = ffi.new("int[1]", 212992)

-- A frame's body at most, so that one finds room in a new socket whatever its headers.
local PIECE_BYTES = 32 * 1024
-- A body that begins with no more is read without asking how long it will be.
local SMALL_BYTES = 4 * 1024
-- Also trailers.
local GRPC = { "grpc-status", "grpc-message" }

local concat, format, min = table.concat, string.format, math.min

local address = ffi.new("glowplug_address")
address.family = AF_UNIX
ffi.copy(address.path, SOCKET, min(#SOCKET, ffi.sizeof(address.path) - 1))

-- Envoy makes a new environment when its listeners change: the old one's connection goes with it.
local connection = ffi.gc(ffi.new("glowplug_connection", -1), function(old)
  if old.fd >= 0 then C.close(old.fd) end
end)
-- Another environment's numbers start at 1 too.
local here = format("%d.%s.%d.", C.getpid(), tostring({}):sub(8), os.time())
local number = 0
-- What routes say, by its text.
local routes, known_routes = {}, 0
local MAX_ROUTES = 1000

local function connect()
  local fd = C.socket(AF_UNIX, SOCKET_TYPE, 0)
  if fd < 0 then return false end
  C.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER, 4)
  if C.connect(fd, address, ffi.sizeof(address)) ~= 0 then
    C.close(fd)
    return false
  end
  connection.fd = fd
  return true
end

-- Whether all of it was taken. A socket that is full is left to its reader, who takes what is whole in it; how many may
-- wait so is the listener's affair.
local function send(frame)
  if connection.fd >= 0 then
    if C.send(connection.fd, frame, #frame, SEND_FLAGS) == #frame then return true end
    C.close(connection.fd)
    connection.fd = -1
  end
  return connect() and C.send(connection.fd, frame, #frame, SEND_FLAGS) == #frame
end

local function deliver(handle, frames)
  if send(frames) then return true end
  handle:stats():counter("uncopied"):inc()
  return false
end

-- A whole request goes together with its answer, which is half as dear as twice; but no later than when so many others
-- have come. One whose client has gone waits for that, too.
local HELD = 32
local held_numbers, held_frames = {}, {}

local function hold(handle, id, frame)
  local place = id % HELD
  local before = held_frames[place]
  held_numbers[place], held_frames[place] = id, frame
  if before then deliver(handle, before) end
  return true
end

local function release(id)
  local place = id % HELD
  if held_numbers[place] ~= id then return "" end
  local frame = held_frames[place]
  held_numbers[place], held_frames[place] = nil, nil
  return frame
end

-- `side`: "q" of a request, "a" of an answer. `state`: "+" there is more to come, "." it is the last of its side, "!"
-- the body is too large. `head`: what the route says (with the first of a request only), then names and values.
local function frame_of(id, side, state, head, body)
  local texts = concat({ here .. id, side, state, head }, "\0")
  return format("%08x%08x", #texts, #body) .. texts .. body
end

local function emit(handle, id, side, state, head, body)
  local frame = frame_of(id, side, state, head, body)
  return deliver(handle, side == "a" and release(id) .. frame or frame)
end

local function append(texts, headers, names)
  local count = #texts
  for i = 1, #names do
    local value = headers:get(names[i])
    if value then
      texts[count + 1], texts[count + 2] = names[i], value
      count = count + 2
    end
  end
end

local function is_grpc(headers)
  local kind = headers:get("content-type")
  return kind ~= nil and kind:sub(1, 16) == "application/grpc"
end

local function grpc_status(trailers)
  local texts = { "" }
  if trailers then append(texts, trailers, GRPC) end
  return concat(texts, "\0")
end

local function announced(handle)
  return tonumber(handle:headers():get("content-length") or "0") or 0
end

-- One side's head and body, as it passes; `is_followed`: it may go with its answer. Whether nothing is missing. Of what
-- Envoy gives, only the handle outlives a wait for the body.
local function copy(handle, id, side, head, is_followed, has_trailers)
  local pieces, count, held, total = {}, 0, 0, 0
  for chunk in handle:bodyChunks() do
    local length, at = chunk:length(), 0
    local is_first = total == 0
    total = total + length
    if total > MAX_BODY_BYTES or (is_first and length > SMALL_BYTES and announced(handle) > MAX_BODY_BYTES) then
      emit(handle, id, side, "!", head, "")
      return false
    end
    while at < length do
      local size = min(length - at, PIECE_BYTES - held)
      count = count + 1
      pieces[count] = chunk:getBytes(at, size)
      at, held = at + size, held + size
      if held == PIECE_BYTES then
        if not emit(handle, id, side, "+", head, concat(pieces)) then return false end
        head, pieces, count, held, is_followed = "", {}, 0, 0, false
      end
    end
  end
  if has_trailers then head = head .. grpc_status(handle:trailers()) end
  if is_followed then return hold(handle, id, frame_of(id, side, ".", head, concat(pieces))) end
  return emit(handle, id, side, ".", head, concat(pieces))
end

-- A line each: what is said of its requests, which parts are copied, the names of a request's headers that are (if
-- there are none, all of them).
local function parse(text)
  local about, parts, list = text:match("^(.-)\n(.-)\n(.*)$")
  local names = {}
  for name in list:gmatch("%S+") do names[#names + 1] = name end
  return { about = about, parts = parts, names = #names > 0 and names }
end

local function route_of(handle)
  local text = handle:filterContext():get("route")
  local route = routes[text]
  if not route then
    if known_routes == MAX_ROUTES then routes, known_routes = {}, 0 end
    route = parse(text)
    routes[text], known_routes = route, known_routes + 1
  end
  return route
end

local function request_head(route, headers)
  local texts = { route.about }
  if route.names then
    append(texts, headers, route.names)
  else
    for name, value in pairs(headers) do
      texts[#texts + 1] = name
      texts[#texts + 1] = value
    end
  end
  return concat(texts, "\0")
end

-- Under which number the answer is copied; 0: it is not.
local function follow(handle, id)
  handle:streamInfo():dynamicMetadata():set(NAME, "id", id)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get(":method") ~= "POST" then return end
  local route = route_of(handle)
  number = number + 1
  local id = number
  local head = request_head(route, headers)
  local is_followed = route.parts ~= "request"
  -- Before the body: an answer may not wait for all of it.
  if is_followed then follow(handle, id) end
  if route.parts == "answer" then
    hold(handle, id, frame_of(id, "q", ".", head, ""))
  elseif not copy(handle, id, "q", head, is_followed, false) and is_followed then
    follow(handle, 0)
  end
end

function envoy_on_response(handle)
  local known = handle:streamInfo():dynamicMetadata():get(NAME)
  local id = known and known.id
  if not id or id == 0 then return end
  local headers = handle:headers()
  local texts = { "" }
  append(texts, headers, ANSWER_HEADERS)
  local has_trailers = false
  if is_grpc(headers) then
    append(texts, headers, GRPC)
    has_trailers = not headers:get("grpc-status")
  end
  copy(handle, id, "a", concat(texts, "\0"), false, has_trailers)
end
