use upcall::c_api;

// SAFETY: no fiber ever runs in this file, so none can wait.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

c_api!("geo");
c_api!("");
c_api!(1);
c_api!(type);
c_api!(r#type);
c_api!(self);
c_api!(géo);
c_api!(_geo);
c_api!(geo_);
c_api!(geo.map);
c_api!(geo, map);
c_api!(, fibers = FIBERS);
c_api!(geo,, fibers = FIBERS);
c_api!(fibers = FIBERS, geo);
c_api!(geo, fibers = FIBERS, fibers = FIBERS);
c_api!(geo, fibers);
c_api!(geo, fibers =);
c_api!(geo, threads = 4);
c_api!(other_value, fibers = 4);

fn main() {}
