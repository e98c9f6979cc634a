// For one hospital: az deployment sub create --location REGION --parameters infra/prod.bicepparam
using 'main.bicep'

param environmentName = 'prod'
param location = 'eastus2'
param stage = 'prod'
param site = 'hospital'
param emrEnvironment = 'PRD'
param emrFhirBase = 'https://emr.hospital.example/api/FHIR/R4'
param emrVendorBase = 'https://emr.hospital.example/api'
param emrClientId = '00000000-0000-0000-0000-000000000000'
param timeZone = 'America/Los_Angeles'
param auditFhirBase = 'https://audit.hospital.example/fhir/R4'
param alertEmail = 'on-call@hospital.example'
param monthlyBudget = 2000
param storeMaxThroughput = 4000
param traceShare = '0.1'
param siteSettings = {
  DEPLOYR_RETENTION_DAYS: 'scored:2557,unscored:400'
  DEPLOYR_TRUSTED_KEYS: '/home/site/wwwroot/hospital/keys/trainers.pem'
}
